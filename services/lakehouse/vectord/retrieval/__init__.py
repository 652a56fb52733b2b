"""Modes of search, their fusion, reranks, and searches as of an earlier version."""
