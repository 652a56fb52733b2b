"""``python -m lakehouse_embedder``: load the model, then serve it."""

from __future__ import annotations

import argparse
import os
import sys

from lakehouse_child import serving
from lakehouse_embedder.weights import WeightsError, open_weights


def main() -> None:
    parser = argparse.ArgumentParser(prog="lakehouse_embedder", description=__doc__)
    serving.add_arguments(parser)
    parser.add_argument("--threads", type=int, default=0, help="that compute; 0 is one a core")
    arguments = parser.parse_args()
    # The tokenizer's threads take turns with the model's.
    os.environ.setdefault("RAYON_NUM_THREADS", str(max(1, arguments.threads)))

    try:
        serving.serve(lambda: _load(arguments.threads), arguments)
    except WeightsError as error:
        sys.exit(f"lakehouse_embedder: {error}")


def _load(threads: int) -> serving.Application:
    from lakehouse_embedder.app import create_app
    from lakehouse_embedder.model import MiniLM

    weights = open_weights()
    return create_app(MiniLM(weights, threads), weights)


if __name__ == "__main__":
    main()
