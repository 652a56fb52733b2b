"""``lakehouse demo``: messy exports in, SQL across them, on an embedded bucket."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lakehouse.cli.calls import Invocation, config_option
from lakehouse.cli.commands.catalog import column_rows
from lakehouse.cli.commands.ingest import show
from lakehouse.cli.commands.vectors import watch
from lakehouse.cli.output import Output, time_text
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.cli.calls import Clients
    from lakehouse.node.config import Config
    from lakehouse.node.lifecycle import Node

EXIT_VARIABLE: Final = "LAKEHOUSE_DEMO_EXIT"
_OWNER: Final = "demo@example.org"
_ANSWER: Final = """\
select c.city, count(*) as placed, count(distinct p.candidate_id) as people,
       round(avg(p.rate), 2) as mean_rate
from placements p join candidates c on c.candidate_id = p.candidate_id
where p.type = 'placed'
group by c.city
order by placed desc, c.city"""
_MESSY: Final = """\
select candidate_id, name, zip, years_experience, hourly_rate
from candidates
where years_experience = 'N/A' and zip like '0%'
order by candidate_id limit 5"""

_OCCUPATIONS: Final = "occupations.csv.gz"
_NEAR: Final = """\
select v.rank, round(v.score, 3) as score, o.words, o.meaning
from vector_search('occupations', 'somebody who repairs broken machines', 5) v
join occupations o on o.synset = v.synset
order by v.rank"""

_ASKED: Final = "laces up shoes and books"
_LATER: Final = (
    b'{"key": "n10242439", "set": {"meaning": "a workman whose work a machine does now"}}'
)
_CONTACTS: Final = b"id,name,phone\n7,Ann,+49 351 1\n8,Bob,+49 351 2\n"
_PATCH: Final = b'{"key": 7, "set": {"phone": "+43 316 5"}}'


@click.command()
@click.option(
    "--data",
    default="./data/demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the demo keeps its bucket.",
)
@click.option("--no-serve", is_flag=True, help="Stop after the answer; LAKEHOUSE_DEMO_EXIT=1 too.")
@config_option
def command(data: Path, no_serve: bool, config_path: Path | None) -> None:
    """Ingest two messy exports into an embedded bucket, ask SQL across them, change a row, search
    by meaning, see why and see it again, and keep serving.

    Running it again changes nothing: the same files are known by their content.
    """
    from lakehouse.node.process import run_node

    invocation = Invocation(Output(as_json=False), config_path)
    config = _demo_config(invocation.config(), data.absolute())
    stays = not (no_serve or os.environ.get(EXIT_VARIABLE))

    async def started(node: Node) -> None:
        await _tour(replace(invocation, url=node.grpc_address))
        _farewell(invocation.output, node, stays)
        if not stays:
            node.request_stop()

    run_node(config, started)


def _demo_config(config: Config, data: Path) -> Config:
    """The configuration with a local bucket of the demo's own; deleting its folder deletes all."""
    from lakehouse.node.settings import BucketEntry, ListenSettings

    return replace(
        config,
        listen=config.listen if config.listen.auth == "off" else ListenSettings(),
        buckets={"primary": BucketEntry(url=(data / "primary").as_uri())},
        node=replace(config.node, state_dir=str(data / "state"), store_id="", log_level="warning"),
        ingest=replace(config.ingest, spool_dir=str(data / "spool")),
        query=replace(config.query, cache_dir=str(data / "cache"), spill_dir=str(data / "spill")),
        vectors=replace(config.vectors, cache_dir=str(data / "vectors")),
        retrievals=replace(config.retrievals, spool_dir=str(data / "retrievals")),
    )


async def _tour(invocation: Invocation) -> None:
    output = invocation.output
    async with invocation.clients() as clients:
        output.say("\n1. Two exports of a staffing firm, as they come", "bold cyan")
        report = await _ingest(invocation, clients, "candidates.csv", "candidates", "crm")
        if report.dead_letters:
            await _sql(invocation, clients, f'select * from "{report.dead_letter_dataset}"')
        report = await _ingest(
            invocation, clients, "placements.ndjson.gz", "placements", "placement app"
        )
        before = report.version
        output.say("\n2. What is in there: types, and personal data that was found", "bold cyan")
        await _card(invocation, clients, "candidates")
        output.say(
            "\n3. Nothing was guessed away: zips keep their zeros, N/A stays N/A", "bold cyan"
        )
        await _sql(invocation, clients, _MESSY)
        output.say("\n4. The next day's export arrives", "bold cyan")
        await _ingest(
            invocation, clients, "placements_later.ndjson.gz", "placements", "placement app"
        )
        output.say("\n5. SQL across both", "bold cyan")
        output.say(_ANSWER, "dim")
        await _sql(invocation, clients, _ANSWER)
        output.say(f"\n6. The same question as of yesterday (version {before})", "bold cyan")
        await _sql(invocation, clients, _ANSWER, before)
        output.say("\n7. A phone number changes, and its past is kept", "bold cyan")
        await _change(invocation, clients)
        output.say("\n8. Found by what it means, with the model that comes along", "bold cyan")
        await _meaning(invocation, clients)
        output.say(
            "\n9. By words and meaning together: why each is there, and the same again later",
            "bold cyan",
        )
        await _trusted(invocation, clients)


async def _change(invocation: Invocation, clients: Clients) -> None:
    """One row of a dataset of its own: exports that were changed would no longer be known again."""
    from lakehouse.contracts.ingest import CardHints, IngestMode, IngestRequest
    from lakehouse.contracts.journal import HistoryRequest
    from lakehouse.contracts.rows import ChangeRowsRequest, RowChange

    async def sent() -> AsyncIterator[bytes]:
        yield _CONTACTS

    card = CardHints(owner=_OWNER, tags=("demo",), source_system="phone book")
    made = IngestRequest("contacts", IngestMode.CREATE, ("id",), card=card)
    with _once():
        await clients.ingest.ingest(invocation.context(), made, sent())
    invocation.output.say(f"{_PATCH.decode()}  -- she called", "dim")
    patch = ChangeRowsRequest("contacts", RowChange.PATCH, _PATCH, reason="she called")
    await clients.rows.change(invocation.context(), patch)
    past = await clients.journal.history(invocation.context(), HistoryRequest("contacts", "7"))
    rows = [
        (one.version, time_text(one.at), one.actor, f.field, f.old_json, f.new_json, one.reason)
        for one in past.revisions
        for f in one.fields
    ]
    columns = ("version", "at", "by", "field", "old", "new", "reason")
    invocation.output.table(columns, rows)


async def _meaning(invocation: Invocation, clients: Clients) -> None:
    """What WordNet says of occupations, embedded and searched, joined with its rows in SQL."""
    from lakehouse.contracts.ingest import CardHints, IngestMode, IngestOptions, IngestRequest
    from lakehouse.contracts.vectors import BuildRequest, CreateIndexRequest

    ctx = invocation.context()
    card = CardHints(owner=_OWNER, tags=("demo",), source_system="WordNet 3.0")
    options = IngestOptions(file_name=_OCCUPATIONS)
    request = IngestRequest(
        "occupations", IngestMode.CREATE, ("synset",), options=options, card=card
    )
    with _once():
        show(invocation, await clients.ingest.ingest(ctx, request, _file(_OCCUPATIONS)))
    wanted = CreateIndexRequest("occupations", "occupations", ("words", "meaning"))
    await clients.vectors.create_index(ctx, wanted)
    built = await clients.vectors.build(ctx, BuildRequest("occupations"))
    built = await watch(invocation, clients, built)
    version = built.index.versions[-1]
    told = f"{version.documents:,} meanings as vectors of {version.dimensions} by {version.model}"
    invocation.output.say(told, "dim")
    invocation.output.say(_NEAR, "dim")
    await _sql(invocation, clients, _NEAR)


async def _trusted(invocation: Invocation, clients: Clients) -> None:
    """A hybrid search that is remembered, explained, and replayed after a row of it changed."""
    from lakehouse.contracts.retrievals import RetrievalRequest
    from lakehouse.contracts.rows import ChangeRowsRequest, RowChange
    from lakehouse.contracts.vectors import SearchRequest, VectorQuery
    from lakehouse.model.retrieval import RecordClass, SearchMode

    ctx, output = invocation.context(), invocation.output
    asked = SearchRequest(
        "occupations",
        (VectorQuery(text=_ASKED),),
        k=4,
        mode=SearchMode.HYBRID,
        record=RecordClass.DURABLE,
    )
    found = await clients.vectors.search(ctx, asked)
    name = found.results[0].retrieval_id
    told = await clients.retrievals.explain(ctx, RetrievalRequest(name))
    output.say(f"{_ASKED!r}, retrieval {name}", "dim")
    rows = [(hit.rank, f"{hit.score:.4f}", hit.text or "", hit.sentence) for hit in told.hits]
    output.table(("rank", "score", "text", "why"), rows)
    output.say(f"{_LATER.decode()}  -- times change", "dim")
    change = ChangeRowsRequest("occupations", RowChange.PATCH, _LATER, reason="times change")
    await clients.rows.change(ctx, change)
    again = await clients.retrievals.replay(ctx, RetrievalRequest(name))
    output.table(
        ("rank", "score", "text then", "row now"),
        [(hit.rank, f"{hit.score:.4f}", hit.text or "(gone)", hit.row) for hit in again.hits],
    )
    same = "the same" if again.same else "ANOTHER"
    output.say(f"{same} digest as recorded: {again.digest}", "dim")


@contextmanager
def _once() -> Iterator[None]:
    """A second run finds what the first one made."""
    try:
        yield
    except LakehouseError as error:
        if error.kind is not ErrorKind.ALREADY_EXISTS:
            raise


async def _ingest(
    invocation: Invocation, clients: Clients, file: str, dataset: str, system: str
) -> Any:
    from lakehouse.contracts.ingest import CardHints, IngestMode, IngestOptions, IngestRequest

    mode = IngestMode.APPEND if "later" in file else IngestMode.AUTO
    request = IngestRequest(
        dataset=dataset,
        mode=mode,
        options=IngestOptions(file_name=file),
        card=CardHints(owner=_OWNER, tags=("demo",), source_system=system),
    )
    report = await clients.ingest.ingest(invocation.context(), request, _file(file))
    show(invocation, report)
    return report


async def _file(name: str) -> AsyncIterator[bytes]:
    yield (files("lakehouse.cli.demo") / name).read_bytes()


async def _card(invocation: Invocation, clients: Clients, name: str) -> None:
    from lakehouse.contracts.catalog import GetRequest

    result = await clients.catalog.get(invocation.context(), GetRequest(name))
    columns = ("column", "type", "personal data")
    invocation.output.table(columns, column_rows(result.dataset))


async def _sql(
    invocation: Invocation, clients: Clients, sql: str, version: int | None = None
) -> None:
    from lakehouse.cli.commands.sql import show_table
    from lakehouse.contracts.catalog import AsOf
    from lakehouse.contracts.query import QueryRequest, ResultFormat

    request = QueryRequest(sql=sql, as_of=AsOf(version=version), format=ResultFormat.NDJSON)
    stream = await clients.query.run(invocation.context(), request)
    await show_table(invocation, stream, 20)


def _farewell(output: Output, node: Node, stays: bool) -> None:
    if not stays:
        output.say("\nThe demo is done; `lakehouse demo` serves it.", "green")
        return
    base = f"http://{node.http_address}"
    output.say(
        f"\nServing {base} (HTTP) and {node.grpc_address} (gRPC); stop with Ctrl-C. Try:",
        "bold green",
    )
    output.say(f"  curl -s {base}/catalog/datasets")
    output.say(f"  curl -s {base}/query/sql -H 'content-type: application/json' \\")
    output.say("""       -d '{"sql": "select city, count(*) from candidates group by city"}'""")
    output.say(f"  curl -s {base}/journal/rows/contacts/7")
    output.say(f"  curl -s {base}/vectors/search \\")
    output.say("""       -d '{"index": "occupations", "text": "sells things in a shop", "k": 3}'""")
    output.say(f"  curl -s {base}/retrievals?limit=3")
    output.say(f"  curl -s {base}/ingest/datasets/mine --data-binary @mine.csv \\")
    output.say("       -H 'content-type: text/csv'")
