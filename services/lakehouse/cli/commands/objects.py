"""``lakehouse objects``: objects in the buckets of a running node."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.output import size_text, time_text
from lakehouse.cli.sources import chunks_of, open_source, progress
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.contracts.objects import ListObjectsResult, ObjectInfo, ObjectRange


@click.group()
def command() -> None:
    """Objects in the buckets of a running node; addressed as BUCKET/KEY."""


@command.command("ls")
@click.argument("place", metavar="BUCKET[/PREFIX]")
@click.option("-r", "--recursive", is_flag=True, help="All below it, not folder by folder.")
@click.option("--limit", default=1000, show_default=True, help="At most so many.")
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def list_(
    invocation: Invocation, place: str, recursive: bool, limit: int, cursor: str
) -> None:
    """List objects and folders; PREFIX is any beginning of a key."""
    from lakehouse.contracts.objects import ListObjectsRequest, ListObjectsResult

    bucket, _, prefix = place.partition("/")
    objects: list[ObjectInfo] = []
    folders: list[str] = []
    async with invocation.clients() as clients:
        while True:
            left = limit - len(objects) - len(folders)
            asked = ListObjectsRequest(
                bucket, prefix, "" if recursive else "/", min(left, 1000), cursor
            )
            page = await clients.objects.list(invocation.context(), asked)
            objects += page.objects
            folders += page.folders
            cursor = page.next
            if not cursor or len(objects) + len(folders) >= limit:
                break
    _show(invocation, ListObjectsResult(tuple(objects), tuple(folders), cursor))


def _show(invocation: Invocation, found: ListObjectsResult) -> None:
    rows: list[tuple[str, str, str]] = [(name, "", "") for name in found.folders]
    for info in found.objects:
        modified = time_text(info.modified_at) if info.modified_at else ""
        rows.append((info.key, size_text(info.size_bytes), modified))
    invocation.output.records(found, ("key", "size", "modified (UTC)"), sorted(rows))
    if found.next:
        invocation.output.say(f"more: --cursor {found.next}")


@command.command()
@click.argument("address", metavar="BUCKET/KEY")
@node_command
async def stat(invocation: Invocation, address: str) -> None:
    """What is known of an object without reading it."""
    from lakehouse.contracts.objects import StatObjectRequest

    async with invocation.clients() as clients:
        request = StatObjectRequest(*_address(address))
        info = (await clients.objects.stat(invocation.context(), request)).info
    lines = {
        "key": info.key,
        "bucket": info.bucket,
        "size": f"{size_text(info.size_bytes)} ({info.size_bytes} bytes)",
        "etag": info.etag,
        "modified": time_text(info.modified_at) if info.modified_at else "",
    }
    invocation.output.record(info, lines)


@command.command()
@click.argument("address", metavar="BUCKET/KEY")
@click.argument("target", metavar="[FILE|-]", default="")
@click.option("--range", "span", default="", metavar="A-B", help="Bytes A to B, A- or -N only.")
@node_command
async def get(invocation: Invocation, address: str, target: str, span: str) -> None:
    """Read an object into FILE, which is whole or not there, or to standard output.

    Without FILE it is written to the current folder, under the last component of its key.
    """
    from lakehouse.contracts.objects import GetObjectRequest

    bucket, key = _address(address)
    request = GetObjectRequest(bucket, key, _range(span))
    async with invocation.clients() as clients:
        stream = await clients.objects.get(invocation.context(), request)
        size = stream.header.end - stream.header.start
        with (
            _sink(target or key.rpartition("/")[2]) as sink,
            progress(not invocation.output.as_json, size) as advance,
        ):
            got = 0
            async for chunk in stream.chunks:
                sink.write(chunk)
                got += len(chunk)
                advance(len(chunk))
            if got != size:
                raise LakehouseError(
                    ErrorKind.CORRUPT, "the object came short", key=key, wanted=size, got=got
                )
    if target != "-":
        invocation.output.record(stream.header, {"key": key, "size": size_text(size)})


@command.command()
@click.argument("source", metavar="FILE|-")
@click.argument("address", metavar="BUCKET/KEY")
@click.option("--if-absent", is_flag=True, help="Only where there is none; at most 64 MiB.")
@click.option("--idempotency-key", default="", help="Of this put  [default: a new one]")
@node_command
async def put(
    invocation: Invocation, source: str, address: str, if_absent: bool, idempotency_key: str
) -> None:
    """Store a file, or standard input: all of it, or nothing. A KEY that ends in a slash is a
    folder: the file's own name is added."""
    from lakehouse.contracts.objects import PutObjectRequest

    if source != "-" and address.endswith("/"):
        address += Path(source).name
    bucket, key = _address(address)
    size, stream = open_source(source)
    sent = hashlib.sha256()
    context = invocation.context(idempotency_key or invocation.context().request_id)
    async with invocation.clients() as clients:
        with progress(not invocation.output.as_json, size) as advance:
            body = _hashed(chunks_of(stream, advance), sent.update)
            request = PutObjectRequest(bucket, key, if_absent, size)
            result = await clients.objects.put(context, request, body)
    if result.sha256 != sent.hexdigest():
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "what was stored is not what was sent",
            key=key,
            sent=sent.hexdigest(),
            stored=result.sha256,
            hint="it was damaged on its way: put it again",
        )
    lines = {
        "key": key,
        "size": size_text(result.info.size_bytes),
        "sha256": result.sha256,
        "etag": result.info.etag,
    }
    invocation.output.record(result, lines)


@command.command()
@click.argument("addresses", metavar="BUCKET/KEY...", nargs=-1, required=True)
@node_command
async def rm(invocation: Invocation, addresses: tuple[str, ...]) -> None:
    """Delete objects; one that is not there is no error."""
    from lakehouse.contracts.objects import DeleteObjectRequest

    places = [_address(each) for each in addresses]
    gone = []
    async with invocation.clients() as clients:
        for place in places:
            request = DeleteObjectRequest(*place)
            gone.append(await clients.objects.delete(invocation.context(), request))
    rows = [(each.bucket, each.key) for each in gone]
    invocation.output.records({"deleted": gone}, ("bucket", "deleted"), rows)


def _address(text: str) -> tuple[str, str]:
    bucket, _, key = text.partition("/")
    if not bucket or not key:
        raise LakehouseError(
            ErrorKind.INVALID,
            "an object is addressed as BUCKET/KEY",
            value=text,
            hint="for example primary/inbox/people.csv",
        )
    return bucket, key


def _range(text: str) -> ObjectRange | None:
    from lakehouse.contracts.objects import ObjectRange

    first, dash, last = text.partition("-")
    if not text:
        return None
    if not dash or not (first + last).isdecimal() or (first and last and int(last) < int(first)):
        raise LakehouseError(
            ErrorKind.INVALID, "a range is A-B, A- or -N", value=text, hint="as in --range 0-99"
        )
    if not first:
        return ObjectRange(last=int(last))
    return ObjectRange(int(first), int(last) + 1 if last else None)


async def _hashed(
    chunks: AsyncIterator[bytes], update: Callable[[bytes], None]
) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        update(chunk)
        yield chunk


@contextmanager
def _sink(target: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that gets its name when all of it is there."""
    if target == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the file cannot be written",
            path=target,
            reason=(error.strerror or "").lower(),
        ) from error
    finally:
        part.unlink(missing_ok=True)
