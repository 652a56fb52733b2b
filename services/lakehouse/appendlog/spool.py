"""A local spool: offered events on this machine's disk until the log has them.

A folder holds one sub-folder a living process, locked by it; what a dead one left is taken over at
the next start. In it, segments of JSON lines, each line with its CRC-32 (so that a torn or damaged
one is dropped alone); a segment becomes one batch of the log. Its name is its put id, and, once it
was sent, the slot it was sent to: ``<ulid>.jsonl``, then ``<ulid>@<n>.jsonl``. So a batch whose
outcome a crash left open is settled and not sent twice.

A line is in the file (``write(2)``) when ``write`` returns: it outlives the process. It is fsynced
by ``sync``, and before its segment is sent: then it outlives the machine. All methods block; call
them off the loop, one at a time.
"""

from __future__ import annotations

import fcntl
import os
import re
import zlib
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lakehouse.appendlog.settings import SpoolBounds
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids

_HEAD: Final = b'{"crc32":"'
_MIDDLE: Final = b'","event":'
_START: Final = len(_HEAD) + 8 + len(_MIDDLE)
_NAME: Final = re.compile(r"([0-9A-Z]{26})(?:@(\d+))?\.jsonl")


@dataclass(frozen=True, slots=True)
class Segment:
    """Sealed lines that go together. ``aimed_at`` is the slot they were sent to, ``None`` before
    that. ``lines`` is ``None`` where they are on the disk alone; ``on_disk`` is false where the
    disk refused."""

    put_id: str
    events: int
    size_bytes: int
    aimed_at: int | None = None
    lines: tuple[bytes, ...] | None = None
    on_disk: bool = True


class Spool:
    """Segments in order; the last one is open and grows.

    Args:
        folder: of one log or one forwarder; processes that do the same may share it. "" for none:
            then everything is in memory alone, within the same bounds.
    """

    def __init__(self, folder: str, bounds: SpoolBounds, clock: Clock, ids: Ids) -> None:
        self.dropped: Counter[str] = Counter()
        """Events that were lost, by reason: spool_full, damaged, not_spooled (left at the end, and
        no disk to keep them)."""
        self.failures = 0
        """Times the disk refused; the events stay in memory."""
        self.recovered = 0
        """Events found at start that an earlier process left."""
        self._root = Path(folder) if folder else None
        self._bounds = bounds
        self._clock = clock
        self._ids = ids
        self._own: Path | None = None
        self._lock = -1
        self._sealed: deque[Segment] = deque()
        self._open: list[bytes] = []
        self._open_bytes = 0
        self._open_id = ""
        self._file = -1
        self._unwritten = False
        self._sealed_events = 0
        self._sealed_bytes = 0
        self.opened_at = 0.0
        self.dirty = False
        """Whether lines are in the file that were not fsynced."""

    @property
    def events(self) -> int:
        """How many wait, sealed or not."""
        return self._sealed_events + len(self._open)

    @property
    def size_bytes(self) -> int:
        return self._sealed_bytes + self._open_bytes

    @property
    def segments(self) -> int:
        """How many are sealed and wait."""
        return len(self._sealed)

    @property
    def open_events(self) -> int:
        """How many are in the segment that still grows, since ``opened_at`` (monotonic)."""
        return len(self._open)

    @property
    def segment_full(self) -> bool:
        bounds = self._bounds
        full = len(self._open) >= bounds.segment_events_max
        return full or self._open_bytes >= bounds.segment_bytes_max

    def start(self) -> None:
        """Make this process's folder and take over what dead processes left.

        A disk that refuses is counted; events are then kept in memory.
        """
        if self._root is None:
            return
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._own, self._lock = self._claim(self._root)
            for lock in sorted(self._root.glob("*.lock")):
                if lock.stem != self._own.name:
                    self._adopt(lock)
            found = [path for path in self._own.iterdir() if _NAME.fullmatch(path.name)]
            for path in sorted(found, key=lambda path: path.name):
                self._recover(path)
        except OSError:
            self.failures += 1

    def write(self, lines: Sequence[bytes]) -> int:
        """Keep ``lines`` in the open segment; how many found room. Seals a full one."""
        kept = 0
        room_events = self._bounds.events_max - self.events
        room_bytes = self._bounds.bytes_max - self.size_bytes
        for line in lines:
            room_bytes -= len(line)
            if kept >= room_events or room_bytes < 0:
                self.dropped["spool_full"] += len(lines) - kept
                break
            kept += 1
        done = 0
        while done < kept:
            done += self._extend(lines[done:kept])
            if self.segment_full:
                self.seal()
        return kept

    def seal(self) -> Segment | None:
        """End the open segment, fsynced; ``None`` if it is empty."""
        if not self._open:
            return None
        self.sync()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        # Lines that are on the disk need not be in memory too, but for the next to be sent.
        keep = self._unwritten or self._own is None or not self._sealed
        lines = tuple(self._open) if keep else None
        on_disk = self._own is not None and not self._unwritten
        size = self._open_bytes
        segment = Segment(self._open_id, len(self._open), size, None, lines, on_disk)
        self._add(segment)
        self._open, self._open_bytes, self._unwritten = [], 0, False
        return segment

    def sync(self) -> None:
        """Have every line that is in the file on the disk itself."""
        if self._file >= 0 and self.dirty:
            try:
                os.fsync(self._file)
                self._sync_folder()
            except OSError:
                self._refused()
        self.dirty = False

    def first(self) -> Segment | None:
        """The oldest sealed segment, with its lines; ``None`` if there is none."""
        while self._sealed:
            segment = self._sealed[0]
            if segment.lines is None:
                lines = self._read(self._path(segment))
                self.dropped["damaged"] += max(segment.events - len(lines), 0)
                self._sealed_events += len(lines) - segment.events
                segment = replace(segment, lines=tuple(lines), events=len(lines))
                self._sealed[0] = segment
            if segment.events:
                return segment
            self.done(segment)
        return None

    def aim(self, segment: Segment, n: int) -> None:
        """Remember that ``segment``, the first, is about to be sent to slot ``n``."""
        current = self._sealed[0]
        if current.put_id != segment.put_id:
            raise LakehouseError(ErrorKind.INTERNAL, "segments of the spool are sent in order")
        aimed = replace(current, aimed_at=n)
        if self._own is not None and current.aimed_at != n:
            try:
                os.rename(self._path(current), self._path(aimed))
            except OSError:
                self.failures += 1
                return
        self._sealed[0] = aimed

    def done(self, segment: Segment) -> None:
        """Forget ``segment``, the first: the log has it."""
        current = self._sealed[0]
        if current.put_id != segment.put_id:
            raise LakehouseError(ErrorKind.INTERNAL, "segments of the spool are done in order")
        self._sealed.popleft()
        self._sealed_events -= current.events
        self._sealed_bytes -= current.size_bytes
        if self._own is not None:
            try:
                self._path(current).unlink(missing_ok=True)
            except OSError:
                self.failures += 1

    def lines(self) -> list[bytes]:
        """All lines that wait, oldest first."""
        found: list[bytes] = []
        for segment in tuple(self._sealed):
            kept = self._read(self._path(segment)) if segment.lines is None else segment.lines
            found.extend(kept)
        return found + self._open

    def close(self) -> None:
        """Seal, and let the folder go; what it holds is there for the next start."""
        self.seal()
        self.dropped["not_spooled"] += sum(one.events for one in self._sealed if not one.on_disk)
        if self._own is not None:
            try:
                if not any(self._own.iterdir()):
                    self._own.rmdir()
                    self._own.with_suffix(".lock").unlink(missing_ok=True)
            except OSError:
                self.failures += 1
        self.abandon()

    def abandon(self) -> None:
        """Let the folder go at once, as the end of the process does."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._own, self._file, self._lock = None, -1, -1

    def _extend(self, lines: Sequence[bytes]) -> int:
        """Add what still fits into the open segment; at least one line."""
        bounds, taken, size = self._bounds, 0, 0
        for line in lines:
            over = self._open_bytes + size + len(line) > bounds.segment_bytes_max
            if (self._open or taken) and over:
                break
            if len(self._open) + taken >= bounds.segment_events_max:
                break
            taken, size = taken + 1, size + len(line)
        if not taken:
            self.seal()
            return 0
        if not self._open:
            self._open_id = self._ids.ulid()
            self.opened_at = self._clock.monotonic()
        part = lines[:taken]
        self._append(part)
        self._open.extend(part)
        self._open_bytes += size
        return taken

    def _append(self, lines: Sequence[bytes]) -> None:
        if self._own is None or self._unwritten:
            self._unwritten = True
            return
        data = b"".join(frame(line) for line in lines)
        try:
            if self._file < 0:
                path = self._own / f"{self._open_id}.jsonl"
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
                self._file = os.open(path, flags, 0o600)
            self.dirty = True
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            self._refused()

    def _refused(self) -> None:
        """The disk is full or broken: this segment is in memory, whole, and partly in the file."""
        self.failures += 1
        self._unwritten = True

    def _add(self, segment: Segment) -> None:
        self._sealed.append(segment)
        self._sealed_events += segment.events
        self._sealed_bytes += segment.size_bytes

    def _sync_folder(self) -> None:
        folder = os.open(self._own or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _path(self, segment: Segment) -> Path:
        aimed = "" if segment.aimed_at is None else f"@{segment.aimed_at}"
        return (self._own or Path()) / f"{segment.put_id}{aimed}.jsonl"

    def _read(self, path: Path) -> list[bytes]:
        try:
            data = path.read_bytes()
        except OSError:
            self.failures += 1
            return []
        return [line for raw in data.split(b"\n") if (line := unframe(raw)) is not None]

    def _recover(self, path: Path) -> None:
        found = _NAME.fullmatch(path.name)
        if found is None:
            return
        data = path.read_bytes()
        raws = data.split(b"\n")
        lines = [line for raw in raws if (line := unframe(raw)) is not None]
        # What follows the last line break is a line that was being written: it was never kept.
        self.dropped["damaged"] += (
            len(raws) - 1 - sum(unframe(raw) is not None for raw in raws[:-1])
        )
        aimed = None if found[2] is None else int(found[2])
        size = sum(map(len, lines))
        self._add(Segment(found[1], len(lines), size, aimed))
        self.recovered += len(lines)

    def _claim(self, root: Path) -> tuple[Path, int]:
        """A new folder below ``root`` and its lock, held."""
        while True:
            own = root / self._ids.ulid()
            lock = os.open(own.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                own.mkdir(mode=0o700)
                return own, lock
            os.close(lock)  # somebody took it for a dead one's before it was held

    def _adopt(self, lock_path: Path) -> None:
        """Move the segments of a dead process into the own folder."""
        try:
            lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if not os.fstat(lock).st_nlink or self._own is None:
                return
            left = lock_path.with_suffix("")
            if left.is_dir():
                for path in sorted(left.iterdir()):
                    path.rename(self._own / path.name)
                left.rmdir()
            lock_path.unlink()
        finally:
            os.close(lock)


def frame(line: bytes) -> bytes:
    """``line`` (a JSON object) as the spool file has it, with its line break."""
    return b'{"crc32":"%08x","event":%b}\n' % (zlib.crc32(line), line)


def unframe(raw: bytes) -> bytes | None:
    """The line in ``raw`` (without its line break); ``None`` if it is torn or damaged."""
    line = raw[_START:-1]
    if raw[:_START] == b'{"crc32":"%08x","event":' % zlib.crc32(line) and raw.endswith(b"}"):
        return line
    return None
