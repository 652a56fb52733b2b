"""``python -m lakehouse_sidecar --ollama-url http://127.0.0.1:11434``"""

from __future__ import annotations

import argparse

from lakehouse_child import serving
from lakehouse_sidecar.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="lakehouse_sidecar", description=__doc__)
    serving.add_arguments(parser)
    parser.add_argument("--ollama-url", required=True, help="the Ollama server to ask")
    parser.add_argument("--generate-url", default="", help="the one that writes; empty: the same")
    parser.add_argument("--permits", type=int, default=1, help="requests at it at once")
    parser.add_argument("--queue-max", type=int, default=64, help="requests of a lane")
    arguments = parser.parse_args()

    settings = Settings(
        ollama_url=arguments.ollama_url,
        permits=max(1, arguments.permits),
        queue_max=max(1, arguments.queue_max),
        generate_url=arguments.generate_url,
    )
    serving.serve(lambda: _load(settings), arguments)


def _load(settings: Settings) -> serving.Application:
    from lakehouse_sidecar.app import create_app

    return create_app(settings)


if __name__ == "__main__":
    main()
