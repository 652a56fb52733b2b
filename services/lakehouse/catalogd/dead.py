"""Which of our objects no version at or above a horizon names, nor a tagged one. Pure."""

from __future__ import annotations

from lakehouse.catalogd.state import CatalogState
from lakehouse.model.dataset import objects_of

__all__ = ["dead"]


def _still_named(state: CatalogState, key: str, horizon: int) -> bool:
    """True if a version at or above ``horizon`` names ``key``, in whatever dataset."""
    if state.broken and state.broken_names(key):
        return True
    for dataset_id in {key.split("/")[2], *state.adopted.get(key, ())}:
        dataset = state.datasets.get(dataset_id)
        if dataset is not None:
            log = dataset.log
            if dataset_id in state.dirty and state.dirty[dataset_id] <= horizon:
                log = log.without_dead(horizon, state.pins_of(dataset_id))
            if log.find(key, retained=True) is not None:
                return True
    return False


def dead(state: CatalogState, horizon: int) -> dict[tuple[str, str], int]:
    """Our objects that only versions below ``horizon`` name: (bucket, key) -> bytes."""
    found: dict[tuple[str, str], int] = {}
    for dataset_id, first in state.dirty.items():
        if first > horizon or dataset_id not in state.datasets:
            continue
        log = state.datasets[dataset_id].log
        pins = state.pins_of(dataset_id)
        rest = log.without_dead(horizon, pins)
        for file in log.dead_since(horizon, pins):
            shared = file.key in state.adopted or file.key.split("/")[2:3] != [dataset_id]
            shared = shared or bool(state.broken)
            if file.external or rest.find(file.key, retained=True) is not None:
                continue
            if not (shared and _still_named(state, file.key, horizon)):
                found.update({(file.bucket, key): 0 for key in objects_of(file)})
                found[(file.bucket, file.key)] = file.size_bytes
    return found
