"""Every curl line of docs/api/http.md does what it says, against the real services."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from e2e.http_stack import http_stack

PAGE: Final = Path(__file__).parents[2] / "docs" / "api" / "http.md"
FILES: Final = {
    "people.csv": b"id,name,phone\n007,Ada,+49 351 5550001\n010,Bob,N/A\n",
    "events.ndjson": b'{"person": "007", "what": "login"}\n{"person": "007", "what": "order"}\n',
}


@dataclass
class Curl:
    """The few options of curl that the page uses; any other fails the test."""

    url: str = ""
    method: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    file: tuple[str, bytes] | None = None

    @classmethod
    def parsed(cls, line: str) -> Curl:
        curl, words = cls(), iter(shlex.split(line)[1:])
        for word in words:
            match word:
                case "-sf" | "-s":
                    pass
                case "-sfI":
                    curl.method = "HEAD"
                case "-T":
                    curl.method, curl.body = "PUT", FILES[next(words)]
                case "-X":
                    curl.method = next(words)
                case "-H":
                    name, _, value = next(words).partition(": ")
                    curl.headers[name] = value
                case "-d" | "--data-binary":
                    text = next(words)
                    curl.body = FILES[text[1:]] if text.startswith("@") else text.encode()
                case "-F":
                    name, _, file = next(words).partition("=@")
                    curl.file = (file, FILES[file])
                    assert name == "file"
                case _ if word.startswith("http://127.0.0.1:3100/"):
                    curl.url = word.removeprefix("http://127.0.0.1:3100")
                case _:
                    raise AssertionError(f"{word!r} in {line}")
        return curl

    async def sent(self, client: httpx.AsyncClient) -> httpx.Response:
        has_body = self.body is not None or self.file is not None
        headers = dict(self.headers)
        if self.body is not None and self.method != "PUT":
            # What curl states where nothing else is.
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        return await client.request(
            self.method or ("POST" if has_body else "GET"),
            self.url,
            headers=headers,
            content=self.body,
            files={"file": self.file} if self.file else None,
        )


async def test_every_curl_line_works(tmp_path: Path) -> None:
    lines = re.findall(r"^curl .*$", PAGE.read_text(), re.MULTILINE)
    assert len(lines) > 10
    answers: dict[str, httpx.Response] = {}
    retrieval = ""
    async with http_stack(tmp_path) as stack, stack.client() as client:
        for line in lines:
            named = line.replace("$ID", retrieval)
            answers[line] = answer = await Curl.parsed(named).sent(client)
            # Without -f an error is what the page shows.
            assert answer.status_code < 300 or " -s " in line, f"{line}\n{answer.text}"
            if "hybrid" in line and "search" in line:
                retrieval = answer.json()["retrieval_id"]
    joined = next(a for line, a in answers.items() if "join events" in line)
    assert joined.text.splitlines() == ["name,n", "Ada,2"]
    parameterised = next(a for line, a in answers.items() if "007" in line)
    assert parameterised.json()["rows"] == [["Ada"]]
    ranged = next(a for line, a in answers.items() if "bytes=-10" in line)
    assert (ranged.status_code, ranged.content) == (206, FILES["people.csv"][-10:])
    counted = next(a for line, a in answers.items() if "count(*) as n from people" in line)
    assert counted.json()["rows"] == [[2]]
    found = next(a for line, a in answers.items() if '"text": "Bob", "k": 3' in line)
    assert [hit["key"] for hit in found.json()["hits"]] == [["010"], ["007"]]
    given = next(a for line, a in answers.items() if '"vector": [0.9' in line)
    assert [hit["key"] for hit in given.json()["hits"]] == ["a", "b"]
    replayed = next(a for line, a in answers.items() if "/replay" in line)
    assert (replayed.json()["same"], replayed.json()["id"]) == (True, retrieval)
    asked = [a for line, a in answers.items() if "/vectors/rag" in line]
    assert [a.status_code for a in asked] == [503, 503]
    assert [len(a.json()["context"]) for a in asked] == [2, 2]
    recalled = next(a for line, a in answers.items() if "/recall" in line)
    assert recalled.json()["hits"][0]["turn"]["text"] == "The roof leaks"
