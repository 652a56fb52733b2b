"""Search by words: what is indexed of the rows of an image, and how the best of them are told."""
