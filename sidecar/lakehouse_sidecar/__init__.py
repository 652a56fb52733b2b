"""Between a program that wants vectors and an Ollama server that makes them.

A process of its own, without state and without a model: `python -m lakehouse_sidecar`. It asks the
Ollama server of its configuration one request at a time, puts queries before indexing, cuts what is
large into pieces, and checks what comes back.
"""
