"""``lakehouse rows``, ``journal`` and ``catalog tag`` against a real node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from e2e.nodes import Node, running
from lakehouse.cli.main import cli
from lakehouse.errors import ErrorKind, LakehouseError

pytestmark = pytest.mark.timeout(400)
PEOPLE = b"id,name,phone,age\n007,Ann,+49 1,30\n010,Bob,+49 2,40\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("rows-cli")
    one = Node(folder / "node", folder / "bucket")
    with running(one):
        one.start()
        file(one, "people.csv", PEOPLE)
        yield one


def run(node: Node, *arguments: str) -> Result:
    """The command in this process: starting one takes longer than most commands do."""
    return CliRunner().invoke(cli, arguments, env={"LAKEHOUSE_URL": node.grpc})


def said(node: Node, *arguments: str) -> Any:
    result = run(node, *arguments, "--json")
    assert result.exception is None, (arguments, getattr(result.exception, "fields", result.output))
    return json.loads(result.stdout)


def shown(node: Node, *arguments: str) -> str:
    result = run(node, *arguments)
    assert result.exception is None, (arguments, result.exception)
    return result.stdout


def refused(node: Node, kind: ErrorKind, *arguments: str) -> str:
    error = run(node, *arguments).exception
    assert isinstance(error, LakehouseError), (arguments, error)
    assert error.kind is kind
    return f"{error} {error.fields}"


def file(node: Node, name: str, data: bytes) -> str:
    path = node.folder / name
    path.write_bytes(data)
    return str(path)


def test_a_phone_number_and_its_past(node: Node) -> None:
    first = said(node, "ingest", str(node.folder / "people.csv"), "--key", "id")["version"]
    set_phone = ("--set", "phone=555", "--expect", "phone=+49 1", "--reason", "she called")
    done = said(node, "rows", "patch", "people", "--key", "007", *set_phone)
    assert (done["updated"], done["version"]) == (1, first + 1)
    again = ("rows", "patch", "people", "--key", "007", *set_phone)
    assert "555" in refused(node, ErrorKind.CONFLICT, *again)
    row = said(node, "rows", "get", "people", "007")
    assert json.loads(row["row_json"]) == {"id": "007", "name": "Ann", "phone": "555", "age": 30}
    before = said(node, "rows", "get", "people", "007", "--as-of", str(first))
    assert json.loads(before["row_json"])["phone"] == "+49 1"
    past = said(node, "journal", "history", "people", "007")
    assert past["revisions"][0]["reason"] == "she called"
    assert past["revisions"][0]["fields"] == [
        {"field": "phone", "old_json": '"+49 1"', "new_json": '"555"'}
    ]
    told = shown(node, "journal", "history", "people", "007")
    assert "she called" in told
    assert "+49 1" in told
    events = said(node, "journal", "events", "-d", "people", "--field", "phone", "--since", "1h")
    assert [event["new_json"] for event in events["events"]] == ['"555"']
    lines = shown(node, "journal", "feed", "people", "--after", str(first), "--json")
    assert [json.loads(line)["entity"] for line in lines.splitlines()] == ['["007"]']


def test_batches_tags_and_the_way_back(node: Node) -> None:
    said(node, "ingest", str(node.folder / "people.csv"), "-d", "team", "--key", "id")
    tag = said(node, "catalog", "tag", "set", "march", "-d", "team", "--note", "closed")
    assert tag["created"]
    assert shown(node, "catalog", "tag", "list").count("march") == 1
    done = said(node, "rows", "upsert", "team", "--row", '{"id": "011", "name": "Cy"}')
    assert done["inserted"] == 1
    done = said(node, "rows", "upsert", "team", file(node, "di.csv", b"id,name\n012,Di\n"))
    assert done["inserted"] == 1
    many = b'[{"key": "011", "set": {"age": 5}}, {"key": "012", "set": {"age": 6}}]'
    assert said(node, "rows", "patch", "team", file(node, "many.json", many))["updated"] == 2
    older = ("rows", "patch", "team", "--where", "age < 10", "--set", "age=11")
    assert said(node, *older, "--set-null", "name")["updated"] == 2
    assert said(node, "rows", "delete", "team", "007", "999")["missing"] == 1
    assert said(node, "rows", "delete", "team", "--where", "age > 35")["deleted"] == 1
    assert said(node, "rows", "widen", "team", "--add", "mail=string")["schema"][-1]["name"] == (
        "mail"
    )
    apart = said(node, "rows", "diff", "team", "--from", "tag:march")
    assert (apart["added"], apart["removed"], apart["changed"]) == (2, 2, 0)
    assert "007" in shown(node, "rows", "diff", "team", "--from", "tag:march")
    report = said(node, "rows", "compact", "team", "--full")
    assert (report["rows"], report["key_files_after"]) == (2, 0)
    tried = said(node, "rows", "restore", "team", "tag:march", "--dry-run")
    back = said(node, "rows", "restore", "team", "tag:march", "--reason", "a mistake")
    counts = ("inserted", "updated", "deleted")
    assert [tried[n] for n in counts] == [back[n] for n in counts] == [2, 0, 2]
    then = ("sql", "select id from team order by id", "--as-of", "tag:march", "--format", "csv")
    assert shown(node, *then) == shown(node, "sql", then[1], "--format", "csv")
    assert said(node, "catalog", "tag", "remove", "march")["tag"]["name"] == "march"
    refused(node, ErrorKind.NOT_FOUND, *then)


def test_a_file_is_upserted_and_a_key_declared_late(node: Node) -> None:
    said(node, "ingest", str(node.folder / "people.csv"), "-d", "late")
    refused(node, ErrorKind.INVALID, "rows", "delete", "late", "--where", "true")
    assert said(node, "rows", "set-key", "late", "id")["rows_checked"] == 2
    path = file(node, "next.csv", b"id,name,phone,age\n010,Bob,+49 2,40\n011,Cy,,1\n")
    upsert = ("ingest", path, "-d", "late", "--mode", "upsert", "--reason", "nightly")
    done = said(node, *upsert)
    assert (done["inserted"], done["updated"], done["unchanged"]) == (1, 0, 1)
    events = said(node, "journal", "events", "-d", "late", "--kind", "insert")["events"]
    assert events[0]["reason"] == "nightly"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rows", "patch", "usage", "--set", "a=1"), "--where"),
        (("rows", "patch", "usage", "--key", "007", "--set", "a"), "NAME=VALUE"),
        (("rows", "delete", "usage"), "--where"),
        (("rows", "upsert", "usage", "a.csv", "--row", "{}"), "--row"),
        (("rows", "widen", "usage"), "--add"),
        (("rows", "restore", "usage", "yesterday"), "tag:"),
    ],
)
def test_what_cannot_be_meant(node: Node, arguments: tuple[str, ...], words: str) -> None:
    people = str(node.folder / "people.csv")
    said(node, "ingest", people, "-d", "usage", "--key", "id")
    assert words in refused(node, ErrorKind.INVALID, *arguments)
