"""Vectors: profiles, index versions, what serves a search.

Profiles and indexes are documents of the catalog, in JSON made of these: a field may be added with
a default, never renamed or removed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

INDEX_DOCUMENTS: Final = "vector_index"
PROFILE_DOCUMENTS: Final = "profile"
VECTORS_FOLDER: Final = "_vectors/"
DIMENSIONS_MAX: Final = 8192


class VectorBackend(StrEnum):
    """What a profile searches with. PARQUET: HNSW in memory over vectors in Parquet."""

    PARQUET = "parquet"
    LANCE = "lance"


class Distance(StrEnum):
    """How near two vectors are. The score of a hit is larger for nearer ones: COSINE in [-1, 1],
    DOT the product, L2 the negative squared distance."""

    COSINE = "cosine"
    DOT = "dot"
    L2 = "l2"


class ChunkMethod(StrEnum):
    """NONE: a document is one chunk. TOKENS: windows of ``size`` words and marks. SENTENCES: whole
    sentences, as many as fit into ``size`` words and marks."""

    NONE = "none"
    TOKENS = "tokens"
    SENTENCES = "sentences"


@dataclass(frozen=True, slots=True)
class Chunking:
    """``size`` and ``overlap`` in words and marks; ``overlap`` is less than ``size``. Small models
    read 256 parts of words and pass over the rest, so a chunk is rather shorter."""

    method: ChunkMethod = ChunkMethod.SENTENCES
    size: int = 150
    overlap: int = 20


@dataclass(frozen=True, slots=True)
class Profile:
    """How texts become vectors, and what searches them.

    Attributes:
        model: as the embedding server calls it.
        dimensions: of its vectors; 0 takes what the model gives.
        bucket: where vectors and indexes lie; "" is the bucket of the dataset.
        hnsw_m, ef_construction: of the graph that is built; more is better recall and slower.
        ef_search: candidates looked at in a search; 0 takes one that fits ``k``.
        exact_rows_max: up to so many chunks every vector is compared: no graph is built.
        builtin: came with the release or the configuration, not by ``put``.
    """

    name: str
    model: str = "all-minilm"
    dimensions: int = 0
    chunking: Chunking = field(default_factory=Chunking)
    distance: Distance = Distance.COSINE
    vector_backend: VectorBackend = VectorBackend.PARQUET
    bucket: str = ""
    hnsw_m: int = 16
    ef_construction: int = 100
    ef_search: int = 0
    exact_rows_max: int = 5000
    description: str = ""
    builtin: bool = False


class VersionState(StrEnum):
    """BUILDING: documents are being embedded; what is there can be searched. READY: it has had all
    documents of a version of its dataset. FAILED: ``error`` says of what; ``build`` goes on."""

    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Structure:
    """A search structure made of rows of vectors: a cache, made anew where it is damaged or gone.

    Attributes:
        kind: ``hnsw`` or ``lance``.
        key: of the object; of Lance the folder of the table, with a slash at its end.
        labels_key: of the object (Parquet) that says which row each label is; "" for Lance.
        sha256: of the bytes at ``key``; of Lance of the list of its files, ``files.json`` in the
            folder, which has theirs. ``lance_version`` is the one to open.
        seq: the version of the store whose rows it was made of.
        recall: the part of the ten nearest of some of its own rows that it found when it was made,
            in [0, 1]; None where that was not measured.
        m, ef_construction: that a graph was built with; 0 where that was not noted.
    """

    kind: str
    key: str
    rows: int
    size_bytes: int = 0
    sha256: str = ""
    labels_key: str = ""
    labels_sha256: str = ""
    lance_version: int = 0
    bucket: str = "primary"
    seq: int = 0
    recall: float | None = None
    m: int = 0
    ef_construction: int = 0


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """One embedding of the documents (ADR-014). Several stand side by side; one is live.

    Attributes:
        number: counts from 1.
        model_digest: of the weights, as the server says; a model that changes under its name has
            another. ``canary_sha256``: of the vector of a known text, rounded, where it does not.
        vectors_dataset: name of the dataset with the vectors, ``vectors.<index>.v<number>``.
        source_version: the dataset's rows up to this version of the store are in it.
        documents, chunks: that can be found now.
        documents_done, documents_total: progress of the build that runs, or ran last.
        embedded_texts: how many texts were sent to the model for it, ever.
        comparison_json: figures against the version that was live when it became ready.
        cut_over: it is to be the live one as soon as it is ready.
    """

    number: int
    state: VersionState
    profile: Profile
    model: str
    model_digest: str
    dimensions: int
    vectors_dataset: str
    vectors_dataset_id: str
    created_at: datetime
    canary_sha256: str = ""
    source_version: int = 0
    documents: int = 0
    chunks: int = 0
    documents_done: int = 0
    documents_total: int = 0
    embedded_texts: int = 0
    ready_at: datetime | None = None
    error: str = ""
    structures: tuple[Structure, ...] = ()
    comparison_json: str = ""
    cut_over: bool = False


@dataclass(frozen=True, slots=True)
class VectorIndexInfo:
    """An index: texts of a dataset that can be searched by meaning, or vectors that were given.

    Attributes:
        dataset: whose rows are the documents; "" for an index of given vectors.
        columns: whose values, joined by a line break, are a document's text.
        live: number of the version that answers; 0 while there is none.
        previous: the one that was live before, for going back; 0 for none.
        version: of the store, of its last change.
        behind: rows of the dataset changed after ``source_version`` of the live version.
    """

    name: str
    dataset: str
    dataset_id: str
    columns: tuple[str, ...]
    profile: str
    live: int
    previous: int
    versions: tuple[IndexVersion, ...]
    created_at: datetime
    version: int = 0
    behind: bool = False
