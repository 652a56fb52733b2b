"""The command line against a real node: what a new user types, also when it is wrong."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from e2e.nodes import END_SECONDS_MAX, PROGRAM, Node, running

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("cli")
    one = Node(folder / "node", folder / "bucket")
    with running(one):
        one.start()
        (one.folder / "a.csv").write_text("id,name\n1,Zoë\n2,日本\n")
        (one.folder / "b.csv").write_text("id,name\n3,x\n")
        assert done(one, "ingest", "a.csv", "b.csv") == 0
        yield one


def done(node: Node, *arguments: str, stdin: bytes = b"") -> int:
    result = node.cli(*arguments, stdin=stdin)
    assert b"Traceback" not in result.stderr, result.stderr.decode()
    return result.returncode


def refusal(node: Node, *arguments: str, stdin: bytes = b"") -> str:
    result = node.cli(*arguments, stdin=stdin)
    assert result.returncode not in (0, 70), result.stderr.decode()
    assert b"Traceback" not in result.stderr
    return result.stderr.decode()


def test_several_files_are_a_dataset_each_or_appended_to_one(node: Node) -> None:
    shown = node.cli("ingest", "a.csv", "b.csv", "--json")
    assert [r["no_op"] for r in json.loads(shown.stdout)["reports"]] == [True, True]
    assert "--mode append" in refusal(node, "ingest", "a.csv", "b.csv", "-d", "both")
    assert done(node, "ingest", "a.csv", "b.csv", "-d", "both", "--mode", "append") == 0
    assert node.sql("select count(*) from both") == [[3]]


def test_a_file_that_fails_is_named_with_what_is_done(node: Node) -> None:
    said = refusal(node, "ingest", "a.csv", "absent.csv", "b.csv")
    assert "absent.csv" in said
    assert "files_done: 1" in said
    assert "is not a file" in refusal(node, "ingest", ".")
    assert "--dataset" in refusal(node, "ingest", "-")


def test_a_statement_comes_from_standard_input_and_a_result_goes_to_a_file(node: Node) -> None:
    assert done(node, "sql", "-o", "out.csv", stdin=b"select * from a order by id") == 0
    assert (node.folder / "out.csv").read_text() == "id,name\n1,Zoë\n2,日本\n"
    assert "--format" in refusal(node, "sql", "select 1 as one", "-o", "out.unknown")
    assert "cannot be written" in refusal(node, "sql", "select 1 as one", "-o", "no/where.csv")
    assert "no statement" in refusal(node, "sql")


def test_a_reader_that_goes_away_is_no_error_that_people_see(node: Node) -> None:
    big = "select x.id from a x, a b, a c, a d, a e, a f, a g, a h, a i, a j, a k, a l, a m, a n"
    shown = subprocess.run(
        ["bash", "-c", '"$@" | head -1', "-", *PROGRAM, "sql", big, "--format", "csv"],
        cwd=node.folder,
        env=node.env,
        capture_output=True,
        check=True,
        timeout=END_SECONDS_MAX,
    )
    assert shown.stdout == b"id\n"
    assert shown.stderr == b""


def test_objects_in_the_bucket_are_registered_by_whoever_answers_for_them(
    node: Node, tmp_path: Path
) -> None:
    shown = node.cli("catalog", "files", "a", "--json")
    key = json.loads(shown.stdout)["files"][0]["key"]
    bucket = Path(node.env["LAKEHOUSE__BUCKETS__PRIMARY__URL"].removeprefix("file://"))
    (bucket / "mine").mkdir()
    (bucket / "mine" / "x.parquet").write_bytes((bucket / key).read_bytes())
    given = ("catalog", "register", "theirs", "mine/x.parquet", "--description", "of others")
    assert "--owner" in refusal(node, *given)
    assert "sensitivity" in refusal(node, *given, "--owner", "me", "--sensitivity", "secret")
    made = node.cli(*given, "--owner", "me", "--json")
    assert made.returncode == 0, made.stderr.decode()
    card = json.loads(made.stdout)["dataset"]["card"]
    assert (card["owner"], card["description"]) == ("me", "of others")
    assert done(node, *given, "--owner", "me") == 0, "the same again"
    assert node.sql("select name from theirs order by id") == [["Zoë"], ["日本"]]


@pytest.mark.parametrize(
    "arguments",
    [
        ("sql", "select * from absent"),
        ("sql", "select 1", "--url", "127.0.0.1:1"),
        ("sql", "select 1", "--as-of", "yesterday"),
        ("sql", "--file", "absent.sql"),
        ("catalog", "show", "absent"),
        ("catalog", "show", "a", "--as-of", "x"),
        ("catalog", "list", "--limit", "0"),
        ("catalog", "import", "a.csv"),
        ("query", "cancel", "absent"),
        ("storage", "probe", "absent"),
        ("doctor", "--bucket", "absent"),
        ("token", "create", "x", "--expires", "soon"),
        ("token", "revoke", "absent"),
        ("serve", "--roles", "absent"),
        ("config", "--config", "absent.toml"),
        ("absent",),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_what_is_wrong_is_said_and_never_traced(node: Node, arguments: tuple[str, ...]) -> None:
    said = refusal(node, *arguments)
    assert said.startswith(("error (", "Usage:")), said


def test_an_interrupt_ends_an_ingest_that_waits_for_its_input(node: Node) -> None:
    with subprocess.Popen(
        [*PROGRAM, "ingest", "-", "--dataset", "slow"],
        cwd=node.folder,
        env=node.env,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as command:
        assert command.stdin is not None
        assert command.stderr is not None
        command.stdin.write(b"a\n1\n")
        command.stdin.flush()
        # It reads, so it is beyond the start of the interpreter; its input stays open.
        _until_read(command.stdin)
        command.send_signal(signal.SIGINT)
        assert command.wait(END_SECONDS_MAX) == 130
        assert b"Traceback" not in command.stderr.read()
    assert "no dataset" in refusal(node, "catalog", "show", "slow")


def _until_read(pipe: IO[bytes]) -> None:
    """Wait until nothing that was written is left unread."""
    deadline = time.monotonic() + END_SECONDS_MAX
    while int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder):
        assert time.monotonic() < deadline, "the command never read its input"
        time.sleep(0.05)


def test_fsck_tells_damage_by_its_exit_code_and_dedupe_what_it_left(node: Node) -> None:
    assert done(node, "catalog", "fsck") == 0
    assert "nothing to do" in node.cli("catalog", "dedupe").stdout.decode()
    assert done(node, "ingest", "a.csv", "-d", "damaged") == 0
    listed = node.cli("catalog", "files", "damaged", "--json")
    (file,) = json.loads(listed.stdout)["files"]
    (node.folder.parent / "bucket" / file["key"]).unlink()
    shown = node.cli("catalog", "fsck")
    assert shown.returncode == 65
    text = shown.stdout.decode()
    assert "1 finding" in text
    assert "1 findings" not in text
    as_json = node.cli("catalog", "fsck", "--json")
    assert as_json.returncode == 65
    report = json.loads(as_json.stdout)
    assert f"--plan {report['plan']}" in text
    assert node.cli("catalog", "fsck", "--plan", report["plan"]).returncode == 65
    assert "quarantined" in node.cli("catalog", "show", "damaged").stdout.decode()
    assert done(node, "catalog", "drop", "damaged", "--purge") == 0
