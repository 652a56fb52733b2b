"""``python -m lakehouse_sidecar --ollama-url http://127.0.0.1:11434``"""

from __future__ import annotations

import argparse

from lakehouse_child import serving


def main() -> None:
    parser = argparse.ArgumentParser(prog="lakehouse_sidecar", description=__doc__)
    serving.add_arguments(parser)
    parser.add_argument("--ollama-url", required=True, help="the Ollama server to ask")
    parser.add_argument("--permits", type=int, default=1, help="requests at it at once")
    parser.add_argument("--queue-max", type=int, default=64, help="requests of a lane")
    arguments = parser.parse_args()

    from lakehouse_sidecar.app import create_app
    from lakehouse_sidecar.settings import Settings

    settings = Settings(
        ollama_url=arguments.ollama_url,
        permits=max(1, arguments.permits),
        queue_max=max(1, arguments.queue_max),
    )
    serving.serve(create_app(settings), arguments)


if __name__ == "__main__":
    main()
