"""Search by words: BM25 over the chunks of an image. A cache, made of the image's rows."""
