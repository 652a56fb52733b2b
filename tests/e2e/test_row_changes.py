"""A phone number changes: who, from what, to what, why, and what the row was before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.nodes import Node, running

pytestmark = pytest.mark.timeout(400)

PEOPLE = b"id,name,phone,score\n1,Ann,+49 351 1,10\n2,Bob,+49 351 2,20\n3,Zo\xc3\xab,,30\n"
ROWS = "/ingest/datasets/people/rows"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path / "node", tmp_path / "bucket")
    with running(one):
        one.start()
        yield one


class Caller:
    """Calls that must succeed, and calls that must be refused."""

    def __init__(self, node: Node) -> None:
        self.client = httpx.Client(base_url=node.url, timeout=60)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def ok(self, method: str, url: str, **how: Any) -> dict[str, Any]:
        answer = self.client.request(method, url, **how)
        assert answer.status_code in (200, 201), f"{method} {url}: {answer.text}"
        body: dict[str, Any] = answer.json()
        return body

    def refused(self, status: int, method: str, url: str, **how: Any) -> dict[str, Any]:
        answer = self.client.request(method, url, **how)
        assert answer.status_code == status, f"{method} {url}: {answer.status_code} {answer.text}"
        assert answer.headers["content-type"] == "application/problem+json"
        body: dict[str, Any] = answer.json()
        return body

    def create(self) -> dict[str, Any]:
        headers = {"Content-Type": "text/csv"}
        return self.ok("POST", "/ingest/datasets/people?key=id", content=PEOPLE, headers=headers)


def test_who_changed_that_phone_number(node: Node) -> None:
    with Caller(node) as caller:
        first = caller.create()["version"]
        body = {"key": 1, "set": {"phone": "555"}, "expect": {"phone": "+49 351 1"}}
        url = f"{ROWS}?mode=patch&reason=she%20called"
        headers = {"X-Request-Id": "call-7", "Lakehouse-Workspace": "desk"}
        done = caller.ok("POST", url, json=body, headers=headers)
        assert (done["updated"], done["inserted"], done["unchanged"]) == (1, 0, 0)
        changed = done["version"]
        assert changed > first

        now = caller.ok("GET", "/datasets/people/rows/1")
        assert now["row"] == {"id": 1, "name": "Ann", "phone": "555", "score": 10}
        then = caller.ok("GET", f"/datasets/people/rows/1?as_of={first}")
        assert then["row"]["phone"] == "+49 351 1"
        for engine in ("datafusion", "duckdb"):
            sql = "select phone from people where id = 1"
            assert node.sql(sql, engine=engine) == [["555"]]
            past = caller.ok(
                "POST", "/query/sql", json={"sql": sql, "engine": engine, "as_of": first}
            )
            assert past["rows"] == [["+49 351 1"]]
            both = f"select n.phone, o.phone from people n join people for version as of {first} o"
            assert node.sql(f"{both} on o.id = n.id where n.id = 1", engine=engine) == [
                ["555", "+49 351 1"]
            ]

        caller.ok("POST", "/ingest/datasets/people/compact?full=true")
        past = caller.ok("GET", f"/journal/rows/people/1?as_of={first}")
        assert past["row"]["phone"] == "+49 351 1"
        (revision,) = past["revisions"]
        assert revision["version"] == changed
        assert (revision["actor"], revision["reason"]) == ("local", "she called")
        assert (revision["workspace"], revision["request_id"]) == ("desk", "call-7")
        (field,) = revision["fields"]
        assert (field["field"], field["old"], field["new"]) == ("phone", "+49 351 1", "555")
        events = caller.ok("GET", "/journal/events?dataset=people&field=phone")["events"]
        assert [event["new"] for event in events] == ["555"]
        for engine in ("datafusion", "duckdb"):
            sql = "select entity, field, old, new, reason from system.events where kind = 'update'"
            assert node.sql(sql, engine=engine) == [
                ["[1]", "phone", '"+49 351 1"', '"555"', "she called"]
            ]


def test_every_kind_of_change_and_a_restart(node: Node) -> None:
    with Caller(node) as caller:
        first = caller.create()["version"]
        rows = [{"id": 2, "name": "Bob", "phone": "22", "score": 20}, {"id": 4, "name": "Dan"}]
        done = caller.ok("POST", ROWS, json=rows)
        assert (done["inserted"], done["updated"]) == (1, 1)
        again = caller.ok("POST", ROWS, json=rows)
        assert (again["unchanged"], again["no_op"], again["version"]) == (2, True, done["version"])
        csv = {"Content-Type": "text/csv"}
        done = caller.ok("POST", ROWS, content=b"id,name\n5,Eve\n", headers=csv)
        assert done["inserted"] == 1
        lines = {"Content-Type": "application/x-ndjson"}
        caller.ok("POST", ROWS, content=b'{"id": 6, "name": "Fay"}\n', headers=lines)
        gone = caller.ok("DELETE", ROWS, json=[3, 99])
        assert (gone["deleted"], gone["missing"]) == (1, 1)
        more = caller.ok("POST", f"{ROWS}?mode=patch&where=score%20%3E%2015", json={"score": 0})
        assert more["updated"] == 1
        less = caller.ok("DELETE", f"{ROWS}?where=name%20%3D%20%27Eve%27")
        assert less["deleted"] == 1
        wide = {"add": [{"name": "mail", "type": "string"}]}
        caller.ok("POST", "/ingest/datasets/people/schema", json=wide)
        caller.ok("POST", ROWS, json={"id": 1, "name": "Ann", "mail": "ann@x", "score": 10})
        sql = "select id, name, phone, score, mail from people order by id"
        expected = [
            [1, "Ann", None, 10, "ann@x"],
            [2, "Bob", "22", 0, None],
            [4, "Dan", None, None, None],
            [6, "Fay", None, None, None],
        ]
        for engine in ("datafusion", "duckdb"):
            assert node.sql(sql, engine=engine) == expected
        before = caller.ok("GET", "/datasets/people/rows/2")
        caller.ok("PUT", "/catalog/tags/march", json={"dataset": "people"})
        node.kill()
        node.start()
        assert caller.ok("GET", "/datasets/people/rows/2")["row"] == before["row"]
        caller.ok("POST", "/ingest/datasets/people/compact?full=true")
        for engine in ("datafusion", "duckdb"):
            assert node.sql(sql, engine=engine) == expected
        apart = caller.ok("GET", f"/datasets/people/diff?from={first}")
        assert (apart["added"], apart["removed"], apart["changed"]) == (2, 1, 2)
        caller.ok("POST", "/ingest/datasets/people/restore-rows", json={"as_of": first})
        assert node.sql("select id, name, phone, score from people order by id") == [
            [1, "Ann", "+49 351 1", 10],
            [2, "Bob", "+49 351 2", 20],
            [3, "Zoë", "", 30],
        ]
        tagged = caller.ok("GET", "/datasets/people/rows/2?as_of=tag:march")
        assert tagged["row"]["score"] == 0
        feed = caller.client.get(f"/journal/feed?dataset=people&after={first}")
        lines_ = [json.loads(line) for line in feed.text.splitlines() if line]
        assert [one["version"] for one in lines_] == sorted(one["version"] for one in lines_)
        assert {one["kind"] for one in lines_} == {"insert", "update", "delete"}


def test_what_is_wrong_is_named_and_nothing_is_applied(node: Node) -> None:
    with Caller(node) as caller:
        version = caller.create()["version"]
        wrong = caller.refused(409, "POST", ROWS, json=[{"id": 1, "fone": "5"}])
        assert "fone" in json.dumps(wrong)
        null = caller.refused(400, "POST", ROWS, json=[{"id": 9, "name": "x"}, {"name": "y"}])
        assert "2" in json.dumps(null)
        twice = caller.refused(400, "POST", ROWS, json=[{"id": 9}, {"id": 8}, {"id": 9}])
        assert {"1", "3"} <= set(json.dumps(twice).replace("]", " ").replace(",", " ").split()) or (
            "[1, 3]" in json.dumps(twice)
        )
        half = [{"id": 8, "score": 1}, {"id": 9, "score": "many"}, {"id": 10, "score": "none"}]
        bad = caller.refused(400, "POST", ROWS, json=half)
        assert "many" in json.dumps(bad)
        assert "none" in json.dumps(bad)
        patch = {"key": 1, "set": {"phone": "0"}, "expect": {"phone": "no"}}
        held = caller.refused(409, "POST", f"{ROWS}?mode=patch", json=patch)
        assert "+49 351 1" in json.dumps(held)
        caller.refused(404, "POST", f"{ROWS}?mode=patch", json={"key": 77, "set": {"name": "x"}})
        caller.refused(400, "POST", f"{ROWS}?mode=patch", json={"key": 1, "set": {"id": 5}})
        missing = caller.refused(400, "DELETE", f"{ROWS}?where=fone%20%3D%201")
        assert "fone" in json.dumps(missing)
        caller.refused(400, "DELETE", f"{ROWS}?where=1%3D1%3B%20drop%20table%20people")
        caller.refused(404, "GET", "/datasets/people/rows/77")
        caller.refused(404, "GET", "/datasets/nobody/rows/1")
        caller.refused(400, "PUT", "/ingest/datasets/people/key", json={"columns": ["fone"]})
        csv = {"Content-Type": "text/csv"}
        caller.ok("POST", "/ingest/datasets/plain", content=PEOPLE, headers=csv)
        caller.refused(400, "POST", "/ingest/datasets/plain/rows", json={"id": 1})
        doubled = PEOPLE + b"3,Zoe,,1\n"
        caller.ok("POST", "/ingest/datasets/twice", content=doubled, headers=csv)
        named = caller.refused(400, "PUT", "/ingest/datasets/twice/key", json={"columns": ["id"]})
        assert "3" in json.dumps(named)
        url, there = "/ingest/datasets/people?mode=append", b"id,name,phone,score\n1,x,,1\n"
        caller.refused(409, "POST", url, content=there, headers=csv)
        dataset = caller.ok("GET", "/catalog/datasets/people")
        assert (dataset["version"], dataset["row_count"]) == (version, 3)


def test_a_key_of_several_columns(node: Node) -> None:
    with Caller(node) as caller:
        csv = {"Content-Type": "text/csv"}
        body = b"country,number,name\nDE,7,Ann\nFR,7,Bob\n"
        caller.ok("POST", "/ingest/datasets/t?key=country,number", content=body, headers=csv)
        key = "%5B%22DE%22%2C7%5D"
        assert caller.ok("GET", f"/datasets/t/rows/{key}")["row"]["name"] == "Ann"
        patch = {"key": ["DE", 7], "set": {"name": "Anna"}}
        caller.ok("POST", "/ingest/datasets/t/rows?mode=patch", json=patch)
        for engine in ("datafusion", "duckdb"):
            rows = node.sql("select country, number, name from t order by country", engine=engine)
            assert rows == [["DE", 7, "Anna"], ["FR", 7, "Bob"]]
        past = caller.ok("GET", f"/journal/rows/t/{key}")
        assert [one["kind"] for one in past["revisions"]] == ["update"]


def test_the_same_key_has_one_effect_and_one_answer(node: Node) -> None:
    with Caller(node) as caller:
        caller.create()
        headers = {"Idempotency-Key": "once"}
        first = caller.ok("POST", ROWS, json={"id": 7, "name": "Gus"}, headers=headers)
        caller.ok("DELETE", ROWS, json=[7])
        node.kill()
        node.start()
        again = caller.ok("POST", ROWS, json={"id": 7, "name": "Gus"}, headers=headers)
        assert again == first
        caller.refused(404, "GET", "/datasets/people/rows/7")
        caller.refused(422, "POST", ROWS, json={"id": 8, "name": "Gus"}, headers=headers)
