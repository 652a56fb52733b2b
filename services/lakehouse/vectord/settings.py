"""What vectord may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class VectorSettings:
    """Section ``vectors``.

    Attributes:
        profiles_dir: folder of profiles that are there from the start, a TOML file each, called as
            the profile; may be missing.
        cache_dir: local folder for copies of search structures; may be deleted at any time.
        memory_bytes_max: of vectors and graphs held in memory; what was searched longest ago goes.
        follow_seconds: between looks whether datasets with indexes have changed.
        fresh_seconds: a search of an index that is behind its dataset waits so long for it to catch
            up, then answers from what is there and says ``behind``.
        batch_documents: embedded and committed together.
        tail_rows: so many rows are compared one by one before a graph is built for them.
        writer: who opens the session at the catalog, for people.
        profiles: section ``profiles``: by name what is said of each, ``chunking.size`` and the like
            for what is inside its chunking; over the profile of the name in ``profiles_dir``.
    """

    cache_dir: str = "./data/vectors"
    memory_bytes_max: int = 4 * _GIB
    follow_seconds: float = 1.0
    fresh_seconds: float = 2.0
    batch_documents: int = 512
    tail_rows: int = 10_000
    writer: str = "vectord"
    heartbeat_seconds: float = 10.0
    profiles_dir: str = "./catalog/profiles"
    profiles: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RetrievalSettings:
    """Section ``retrievals``: what is remembered of searches, and of trials.

    Attributes:
        spool_dir: local folder where retrievals wait until the primary has them; it outlives the
            process, and one of another process that has ended is taken over.
        queue_max: retrievals that may wait in memory to be composed; beyond, dropped and counted.
        retention_days: older ones are given up, batch by batch; 0 keeps them for ever.
    """

    spool_dir: str = "./data/retrievals"
    queue_max: int = 10_000
    retention_days: float = 0.0


@dataclass(frozen=True, slots=True)
class RagSettings:
    """Section ``rag``: answers by a generative model of the embedding server.

    Attributes:
        model: that answers where a request names none; "" refuses such requests.
        timeout_seconds: until the first word, and from word to word.
        context_bytes_max: of retrieved text that the model is given; what is beyond is shortened,
            and says so.
    """

    model: str = ""
    timeout_seconds: float = 120.0
    context_bytes_max: int = 24_000


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """Section ``embedding``: who turns texts into vectors.

    Attributes:
        sidecar_url: of a running sidecar; "" starts one with the first text.
        ollama_url: of the Ollama server that the started sidecar asks; "" starts the small model
            that comes with the release.
        generate_url: of the Ollama server that the started sidecar asks to write answers; "" is the
            one that embeds. With it, the small model may embed and another server write.
        timeout_seconds: of one request.
        idle_seconds: processes that were started here end when nobody asked for so long; 0 is
            never.
        threads: of the small model that is started here; 0 is one a core.
        queue_max: requests that may wait at the sidecar that is started here, of searches and of
            indexing each; the next is refused as exhausted.
    """

    sidecar_url: str = ""
    ollama_url: str = ""
    timeout_seconds: float = 60.0
    idle_seconds: float = 0.0
    threads: int = 0
    queue_max: int = 64
    generate_url: str = ""
