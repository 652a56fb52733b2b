"""What is remembered of a search: pointers, handed over on the reply path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lakehouse.contracts import vectors as c
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import RecordClass, SearchedIndex
from lakehouse.model.vectors import IndexVersion, Structure, VectorIndexInfo
from lakehouse.vectord.asking import Asked
from lakehouse.vectord.image import Image
from lakehouse.vectord.ports import Vectors
from lakehouse.vectord.records.recorder import Recorder
from lakehouse.vectord.retrieval.searched import Searched

__all__ = ["Noting"]

_FLOAT = np.dtype("<f4")
_REMEMBERED = 1_000
_Told = tuple[VectorIndexInfo, IndexVersion, tuple[Structure, ...], int, bool, str]


class Noting:
    """Hands answers to the recorder. Belongs to one event loop."""

    def __init__(self, clock: Clock, recorder: Recorder) -> None:
        self._clock = clock
        self._recorder = recorder
        self._said: dict[tuple[str, int], tuple[_Told, SearchedIndex]] = {}

    async def remember(
        self,
        ctx: Context,
        request: c.SearchRequest,
        result: c.SearchResult,
        indexes: tuple[SearchedIndex, ...],
        queries: Vectors | None,
        as_of_version: int = 0,
    ) -> None:
        """At once and for certain where the request asks for it; else noted, without waiting.

        Args:
            queries: what the first of ``indexes`` was searched with; None where no vector was.
        """
        if request.record is RecordClass.NONE:
            return
        searched = self._searched(ctx, request, result, indexes, queries, as_of_version)
        if request.record is RecordClass.DURABLE:
            await self._recorder.keep(searched)
        else:
            self._recorder.note(searched)

    def _searched(
        self,
        ctx: Context,
        request: c.SearchRequest,
        result: c.SearchResult,
        indexes: tuple[SearchedIndex, ...],
        queries: Vectors | None,
        as_of_version: int,
    ) -> Sequence[Searched]:
        at = self._clock.now_us()
        return [
            Searched(
                hits.retrieval_id,
                at,
                ctx,
                request,
                place,
                result,
                hits,
                b"" if queries is None else queries[place].astype(_FLOAT, copy=False).tobytes(),
                indexes,
                as_of_version,
            )
            for place, hits in enumerate(result.results)
        ]

    def index(self, asked: Asked, image: Image, served_by: str) -> SearchedIndex:
        """An index as it was searched; said once as long as it is the same."""
        info, version = asked.info, asked.version
        key = (info.name, version.number)
        # Not the parts: an image goes when nobody searches it any more.
        structures = tuple([part.structure for part in image.parts])
        told = (info, version, structures, image.head, asked.behind, served_by)
        known = self._said.get(key)
        if known is not None and _same(known[0], told):
            return known[1]
        said = SearchedIndex(
            info.name,
            version.number,
            version.profile.name,
            version.model,
            version.model_digest,
            version.profile.vector_backend.value,
            served_by,
            info.dataset,
            info.dataset_id,
            info.columns,
            version.vectors_dataset,
            version.vectors_dataset_id,
            version.source_version,
            image.head,
            asked.behind,
            tuple([each.sha256 for each in structures if each.sha256]),
        )
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said[key] = (told, said)
        return said


def _same(known: _Told, told: _Told) -> bool:
    return known[0] is told[0] and known[1] is told[1] and known[2:] == told[2:]
