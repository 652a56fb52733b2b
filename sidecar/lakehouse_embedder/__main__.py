"""``python -m lakehouse_embedder``: load the model, then serve it."""

from __future__ import annotations

import argparse
import os
import sys

from lakehouse_child import serving


def main() -> None:
    parser = argparse.ArgumentParser(prog="lakehouse_embedder", description=__doc__)
    serving.add_arguments(parser)
    parser.add_argument("--threads", type=int, default=0, help="that compute; 0 is one a core")
    arguments = parser.parse_args()
    # The tokenizer's threads and the model's take turns; more of them would only queue.
    os.environ.setdefault("RAYON_NUM_THREADS", str(max(1, arguments.threads)))

    from lakehouse_embedder.app import create_app
    from lakehouse_embedder.model import MiniLM
    from lakehouse_embedder.weights import WeightsError, open_weights

    try:
        weights = open_weights()
    except WeightsError as error:
        sys.exit(f"lakehouse_embedder: {error}")
    serving.serve(create_app(MiniLM(weights, arguments.threads), weights), arguments)


if __name__ == "__main__":
    main()
