"""The command line without a node: help, exit codes, errors for people and for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse.cli.main import COMMANDS
from lakehouse.errors import EXIT_CODE, ErrorKind

PROGRAM = [sys.executable, "-c", "from lakehouse.cli.main import main; main()"]


def _run(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    base = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=folder,
        env=base | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_names_every_command_and_loads_no_engine(tmp_path: Path) -> None:
    done = _run(tmp_path, "--help")
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    heavy = ("grpc", "pyarrow", "duckdb", "datafusion", "boto3", "fastapi", "rich")
    program = (
        "import sys, contextlib, io\n"
        "sys.argv = ['lakehouse', '--help']\n"
        "from lakehouse.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main()\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert shown.stdout == b"[]\n"


def test_a_node_that_is_not_there_is_an_error_with_a_hint(tmp_path: Path) -> None:
    done = _run(tmp_path, "catalog", "list", "--url", "127.0.0.1:1")
    assert done.returncode == EXIT_CODE[ErrorKind.UNAVAILABLE]
    assert "lakehouse up" in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_are_json_where_json_was_asked_for(tmp_path: Path) -> None:
    done = _run(tmp_path, "config", "--json", LAKEHOUSE__GATEWAY__HTPP="x")
    assert done.returncode == EXIT_CODE[ErrorKind.INVALID]
    error = json.loads(done.stderr)["error"]
    assert error["kind"] == "invalid"
    assert error["nearest"] == "LAKEHOUSE__GATEWAY__HTTP"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nonsense"], 2),
        (["sql", "--engine", "oracle", "select 1"], 2),
        (["serve", "--roles", "cook"], 64),
        (["ingest", "nothing.csv"], 66),
        (["ingest", "-"], 64),
        (["sql", "select 1", "--as-of", "yesterday", "--url", "127.0.0.1:1"], 64),
        (["token", "create", "x", "--expires", "soon", "--url", "127.0.0.1:1"], 64),
        (["config", "--config", "nothing.toml"], 66),
        (["doctor", "--bucket", "nothing"], 66),
    ],
)
def test_exit_codes_follow_the_kind_of_error(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    done = _run(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_config_shows_values_with_their_source_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "lakehouse.toml").write_text("[buckets.primary]\nsecret_ref = 'env:MY_S3'\n")
    shown = _run(
        tmp_path, "config", "--json", MY_S3="canary-secret", LAKEHOUSE__NODE__LOG_LEVEL="debug"
    )
    values = json.loads(shown.stdout)["values"]
    assert values["node.log_level"] == {"value": "debug", "source": "LAKEHOUSE__NODE__LOG_LEVEL"}
    assert values["buckets.primary.secret_ref"]["source"] == "lakehouse.toml"
    assert "canary-secret" not in shown.stdout + shown.stderr


def test_doctor_proves_a_local_bucket(tmp_path: Path) -> None:
    done = _run(tmp_path, "doctor", "--json", XDG_STATE_HOME=str(tmp_path / "state"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["reports"][0]
    assert report["passed"]
    assert {check["name"] for check in report["checks"]} >= {"put-if-absent", "one-winner"}


def test_init_is_idempotent_and_remembers(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    first = _run(tmp_path, "init", "--json", **env)
    again = _run(tmp_path, "init", "--json", **env)
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert json.loads(first.stdout) == json.loads(again.stdout)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    refused = _run(tmp_path, "init", **env)
    assert refused.returncode == EXIT_CODE[ErrorKind.CONFLICT]
    assert "a store was here before" in refused.stderr
