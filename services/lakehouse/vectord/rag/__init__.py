"""Answers by a generative model from retrieved text, with citations."""
