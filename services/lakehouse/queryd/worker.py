"""A query worker: a process of its own, no credentials, one query at a time.

Started as ``python -m lakehouse.queryd.worker <socket fd> <settings json>``. It reads plans from
the socket and writes frames (``wire``) back; the socket's own buffer is the back pressure. It ends
when the other side closes, also in the middle of a query.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import select
import socket
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pyarrow as pa

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.queryd import deltas
from lakehouse.queryd.adapters.engine_errors import scrub
from lakehouse.queryd.deltas import Deltas
from lakehouse.queryd.encode import conform, make_encoder, output_schema
from lakehouse.queryd.plan import Plan, TableScan, decode
from lakehouse.queryd.wire import FRAME_BYTES_MAX, HEADER, Frame, frame
from lakehouse.table.types import from_arrow

SLICE_ROWS: Final = 8192
SEND_BYTES: Final = 8192
IDLE_SECONDS: Final = 0.02
SLICE_BYTES: Final = 8 << 20
SCANS_MAX: Final = 4 * 2048  # more than the service ever believes it has told (pool)
_HEAD_BYTES: Final = 1 << 16
_CPU_FOREVER: Final = resource.RLIM_INFINITY


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is started with."""

    threads: int
    spill_dir: str
    spill_bytes_max: int
    address_space_bytes: int
    memory_bytes: int


class Mail:
    """What the service says: plans, and after one perhaps that nobody wants it any more."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._read = b""

    def waits(self, seconds: float = 0.0) -> bool:
        """Whether there is something to receive, now or within ``seconds``; the end counts."""
        return bool(self._read or select.select([self._link], [], [], seconds)[0])

    def receive(self) -> tuple[Frame, bytes] | None:
        """The next frame, or None once the other side has closed."""
        while len(self._read) < HEADER.size:
            part = self._link.recv(_HEAD_BYTES)
            if not part:
                return None
            self._read += part
        kind, size, _ = HEADER.unpack_from(self._read)
        parts, missing = [self._read], HEADER.size + size - len(self._read)
        while missing > 0:
            part = self._link.recv(min(missing, 1 << 20))
            if not part:
                return None
            parts.append(part)
            missing -= len(part)
        whole = b"".join(parts)
        end = HEADER.size + size
        self._read = whole[end:]
        return Frame(kind), whole[HEADER.size : end]


class Worker:
    """Engines and the scans it was told about; opened as they are needed."""

    def __init__(self, link: socket.socket, settings: WorkerSettings) -> None:
        self._link = link
        self._mail = Mail(link)
        self._settings = settings
        self._engines: dict[str, Any] = {}
        self._scans: OrderedDict[str, TableScan] = OrderedDict()
        self._deltas = Deltas()
        self._clock = SystemClock()

    def engine(self, name: str) -> Any:
        """The adapter of an engine."""
        if name not in self._engines:
            settings = self._settings
            limits = (settings.threads, settings.spill_dir, settings.spill_bytes_max)
            arguments = (*limits, self._deltas)
            if name == "duckdb":
                from lakehouse.queryd.adapters.duckdb import DuckDbEngine

                self._engines[name] = DuckDbEngine(*arguments)
            else:
                from lakehouse.queryd.adapters.datafusion import DataFusionEngine

                self._engines[name] = DataFusionEngine(*arguments)
        return self._engines[name]

    def warm(self) -> None:
        """Run one statement on each engine, so that the first query finds all loaded."""
        for name in ("duckdb", "datafusion"):
            self.engine(name).execute("SELECT 1", (), self._settings.memory_bytes).read_all()
            self.engine(name).prepare()
        deltas.warm()

    def serve(self) -> None:
        """Answer plans until the other side closes."""
        while (told := self._mail.receive()) is not None:
            kind, body = told
            if kind is not Frame.PLAN:
                continue  # what was to be left had ended already
            plan = decode(body)
            self._answer(plan)
            engine = self.engine(plan.engine)
            if not (engine.prepared or self._mail.waits(IDLE_SECONDS)):
                engine.prepare()

    def _answer(self, plan: Plan) -> None:
        _limit_cpu(plan.cpu_seconds)
        try:
            self._run(plan)
        except LakehouseError as error:
            self._send_error(error)
        finally:
            _limit_cpu(0)

    def _run(self, plan: Plan) -> None:
        engine = self.engine(plan.engine)
        for scan in plan.tables:
            self._scans[scan.name] = scan
            self._scans.move_to_end(scan.name)
        while len(self._scans) > SCANS_MAX:
            self._scans.popitem(last=False)
        tables = tuple(self._scans[name] for name in plan.uses)
        reader = engine.execute(plan.sql, tables, plan.memory_bytes)
        try:
            self._stream(plan, reader)
        except LakehouseError:
            raise
        except Exception as error:
            translated = engine.translate(error)
            if translated is error:
                raise
            raise translated from error
        finally:
            reader.close()

    def _stream(self, plan: Plan, reader: pa.RecordBatchReader) -> None:
        schema = output_schema(reader.schema, plan.output)
        encoder = make_encoder(plan.format, schema, plan.head)
        # Nothing is sent before the first batch is there: an error until then is a plain error.
        waiting, data = frame(Frame.HEAD, _columns(schema)), encoder.begin()
        rows, sent = 0, 0
        for batch in reader:
            if plan.explain:
                batch = _without_paths(batch)
            for piece in _slices(batch):
                if self._mail.waits():
                    raise LakehouseError(ErrorKind.CONFLICT, "the query was given up")
                rows += piece.num_rows
                if rows > plan.rows_max:
                    raise _over("rows_max", plan.rows_max)
                more = encoder.batch(conform(piece, schema))
                sent += len(more)
                if sent > plan.bytes_max:
                    raise _over("bytes_max", plan.bytes_max)
                data += more
                if len(data) > SEND_BYTES:
                    self._link.sendall(waiting + _data(data, rows))
                    waiting = data = b""
        elapsed = max(0.0, self._clock.monotonic() - plan.started) * 1000
        # What is short goes as one frame: each costs the service and its client a turn.
        waiting += _data(data + encoder.end(rows, elapsed), rows)
        end = {"rows": rows, "bytes": sent}
        self._link.sendall(waiting + frame(Frame.END, orjson.dumps(end)))

    def _send_error(self, error: LakehouseError) -> None:
        body = {"kind": error.kind.value, "message": error.message, "fields": error.fields}
        self._link.sendall(frame(Frame.ERROR, orjson.dumps(body)))


@functools.lru_cache(maxsize=256)
def _columns(schema: pa.Schema) -> bytes:
    """The body of HEAD."""
    return orjson.dumps([[field.name, from_arrow(field.type)] for field in schema])


def _over(name: str, limit: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.EXHAUSTED,
        "the result is larger than the query's limit",
        http_status=422,
        limit=name,
        value=limit,
        hint="add a LIMIT or aggregate, or raise the limit if yours is the lower one",
    )


def _data(body: bytes, rows: int = 0) -> bytes:
    """``body`` as DATA frames; nothing for nothing."""
    if len(body) <= FRAME_BYTES_MAX:
        return frame(Frame.DATA, body, rows) if body else b""
    view = memoryview(body)
    starts = range(0, len(body), FRAME_BYTES_MAX)
    parts = (bytes(view[at : at + FRAME_BYTES_MAX]) for at in starts)
    return b"".join(frame(Frame.DATA, part, rows) for part in parts)


def _slices(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """Pieces of a batch that are encoded and sent at a time: at most 8,192 rows, about 8 MiB."""
    if batch.num_rows <= SLICE_ROWS and batch.nbytes <= SLICE_BYTES:
        return [batch]
    wide = max(1, batch.nbytes // max(1, batch.num_rows))
    step = max(1, min(SLICE_ROWS, SLICE_BYTES // wide))
    return [batch.slice(at, step) for at in range(0, batch.num_rows, step)]


def _without_paths(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        pa.array([scrub(v) if isinstance(v, str) else v for v in column.to_pylist()], column.type)
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _limit_cpu(seconds: int) -> None:
    """Let the process use ``seconds`` more of CPU, then be killed; 0 takes the limit away."""
    soft = _CPU_FOREVER
    if seconds:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(usage.ru_utime + usage.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, _CPU_FOREVER))


def _limit_process(settings: WorkerSettings) -> None:
    limits = {
        resource.RLIMIT_AS: settings.address_space_bytes,
        resource.RLIMIT_NOFILE: 8192,
        resource.RLIMIT_FSIZE: settings.spill_bytes_max,
        resource.RLIMIT_CORE: 0,
    }
    for name, wanted in limits.items():
        hard = resource.getrlimit(name)[1]
        bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(name, (bound, hard))


def _let_others_first() -> None:
    """A plan that comes must not take the core from the service that is about to send the next."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _end_with_parent(link: socket.socket) -> None:
    """Leave at once when the service is gone, whatever an engine is doing."""
    poll = select.poll()
    poll.register(link.fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    poll.poll()
    os._exit(0)


def main() -> None:
    """The process: limits first, then engines, then plans."""
    link = socket.socket(fileno=int(sys.argv[1]))
    settings = WorkerSettings(**orjson.loads(sys.argv[2]))
    _limit_process(settings)
    _let_others_first()
    threading.Thread(target=_end_with_parent, args=(link,), daemon=True).start()
    pa.set_cpu_count(settings.threads)
    worker = Worker(link, settings)
    worker.warm()
    link.sendall(frame(Frame.READY, b""))
    worker.serve()


if __name__ == "__main__":
    main()
