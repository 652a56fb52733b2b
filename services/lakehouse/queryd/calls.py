"""``vector_search(..)``, ``text_search(..)`` and ``hybrid_search(..)`` in a statement: found in its
text, and put in their place the name of a relation.

In the text and not in the tree, for a vector written out has a thousand words, which neither the
parser nor a plan that is kept should see. What is left of the text is parsed and checked as any
other; the arguments are data and reach no engine. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from lakehouse.model.retrieval import SearchMode
from lakehouse.queryd.functions import SEARCHES
from lakehouse.queryd.parse import invalid

__all__ = ["CALLS_MAX", "FUNCTIONS", "Call", "Rewritten", "rewritten"]

FUNCTIONS: Final = SEARCHES
CALLS_MAX: Final = 8
K_DEFAULT: Final = 10
_QUERY: Final = dict.fromkeys(SearchMode, "'words'") | {
    SearchMode.VECTOR: "'text' or [vector] or ?"
}
_NAMED: Final = {
    "filter": str,
    "exact": bool,
    "ef": int,
    "number": int,
    "model": str,
    "candidates": int,
    "rerank": str,
}
_OF_VECTORS: Final = frozenset({"exact", "ef"})
_INTEGER_MAX: Final = 2**31 - 1
_FLOAT_MAX: Final = 3.4028234663852886e38
# What a word is not looked for in, and what parameters are. What has no end goes to the end of the
# text, or each of its beginnings would be tried.
_LEXER: Final = re.compile(
    r"""--[^\n]*
    |/\*(?:.*?\*/|.*)
    |\b[eE]'(?:[^'\\]|\\.|'')*+'?+
    |'(?:[^']|'')*+'?+
    |"(?:[^"]|"")*+"?+
    |\$(?P<tag>(?:[A-Za-z_]\w*)?)\$(?:.*?\$(?P=tag)\$|.*)
    |(?P<question>\?)
    |\$(?P<number>\d+)
    |(?:\$|(?<![:\w]):)(?P<name>[A-Za-z_]\w*)
    |(?<![\w.$"])(?P<call>(?:vector|text|hybrid)_search)\s*+\(
    |[A-Za-z_]\w*+
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_SPACE: Final = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*+", re.DOTALL)
_STRING: Final = re.compile(r"'((?:[^']|'')*+)'")
_ARRAY: Final = re.compile(r"(?:array\s*+)?\[([-+0-9.eE,\s]*+)\]", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[-+]?\d++(?![.\w])")
_WORD: Final = re.compile(r"(?:true|false|null)\b", re.IGNORECASE)
_KEYWORD: Final = re.compile(r"([A-Za-z_]\w*+)\s*+(?:=>|:=)")
_CAST: Final = re.compile(
    r"::\s*+[A-Za-z_]\w*+(?:\s++precision)?+(?:\s*+\(\s*+\d++\s*+\))?+(?:\s*+\[\s*+\d*+\s*+\])?+",
    re.IGNORECASE,
)
_WORDS: Final = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Call:
    """One search. ``query`` is a text or a vector; ``slot`` the schema that its relation, which is
    called as its ``function``, has in the text that is left."""

    slot: str
    index: str
    query: str | tuple[float, ...]
    k: int
    options: dict[str, Any] = field(default_factory=dict)
    function: str = "vector_search"

    @property
    def mode(self) -> SearchMode:
        return FUNCTIONS[self.function]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A statement whose searches are relations: ``"vector_search:1".vector_search`` and so on."""

    sql: str
    params_json: str
    calls: tuple[Call, ...]


def rewritten(sql: str, params_json: str) -> Rewritten:
    """``sql`` without its searches, and the parameters that are left.

    Raises ``invalid`` for a search whose arguments are not literals or parameters, or no search.
    """
    lowered = sql.lower()
    if not any(function in lowered for function in FUNCTIONS):
        return Rewritten(sql, params_json, ())
    found = _Statement(sql, _Given(params_json))
    calls = found.read()
    return (
        Rewritten(found.left, found.given.left(), calls)
        if calls
        else Rewritten(sql, params_json, ())
    )


class _Given:
    """The parameters of a request, and which of them searches and the rest of the text use."""

    def __init__(self, params_json: str) -> None:
        try:
            self.values: Any = orjson.loads(params_json) if params_json else []
        except orjson.JSONDecodeError as error:
            raise invalid("the parameters are not JSON") from error
        self._json = params_json
        self.questions = 0
        self._taken: set[int | str] = set()
        self._kept: set[int | str] = set()

    def question(self) -> int:
        """The place of the next ``?``, from 0."""
        self.questions += 1
        return self.questions - 1

    def keep(self, name: int | str) -> None:
        self._kept.add(name)

    def take(self, name: int | str) -> Any:
        """The value of a parameter: a place from 0, or a name."""
        try:
            value = self.values[name]
        except (LookupError, TypeError):
            shown = f"${name + 1}" if isinstance(name, int) else f"${name}"
            raise invalid("there is no such parameter", parameter=shown[:80]) from None
        self._taken.add(name)
        return value

    def left(self) -> str:
        """The JSON of those that the rest of the text uses, and of those that nothing uses."""
        gone = self._taken - self._kept
        if not gone:
            return self._json
        if isinstance(self.values, dict):
            return _dumps({name: one for name, one in self.values.items() if name not in gone})
        if self.questions:
            return _dumps([one for at, one in enumerate(self.values) if at not in gone])
        # $1 .. keep their numbers: those that only searches use are no more than fillers.
        size = len(self.values)
        while size and size - 1 in gone:
            size -= 1
        return _dumps([None if at in gone else one for at, one in enumerate(self.values[:size])])


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


class _Statement:
    """A text on its way: what is left of it, call by call."""

    def __init__(self, sql: str, given: _Given) -> None:
        self._sql = sql
        self._at = 0
        self.given = given
        self.left = ""
        self._function = ""

    def read(self) -> tuple[Call, ...]:
        calls: list[Call] = []
        done = 0
        for token in self._tokens():
            if token["call"] is None:
                self._keep(token)
                continue
            if len(calls) == CALLS_MAX:
                raise invalid("there are too many searches in one statement", limit=CALLS_MAX)
            self._function = token["call"].lower()
            slot = f"{self._function}:{len(calls) + 1}"
            calls.append(self._call(slot, *self._arguments()))
            self.left += f'{self._sql[done : token.start()]}"{slot}".{self._function}'
            done = self._at
        self.left += self._sql[done:]
        return tuple(calls)

    def _tokens(self) -> Iterator[re.Match[str]]:
        while (token := _LEXER.search(self._sql, self._at)) is not None:
            self._at = token.end()
            yield token

    def _keep(self, token: re.Match[str]) -> None:
        if (name := self._parameter(token)) is not None:
            self.given.keep(name)

    def _parameter(self, token: re.Match[str]) -> int | str | None:
        if token["question"]:
            return self.given.question()
        if token["number"]:
            return int(token["number"][:9]) - 1
        return token["name"]

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self._at = _matched(_SPACE, self._sql, self._at).end()
        found = pattern.match(self._sql, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _sign(self, sign: str) -> bool:
        return self._match(re.compile(re.escape(sign))) is not None

    def _arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """What stands in the brackets, of which the first has been read."""
        positional: list[Any] = []
        named: dict[str, Any] = {}
        while not self._sign(")"):
            if (positional or named) and not self._sign(","):
                raise self._wrong("an argument is a literal or a parameter", self._sql[self._at :])
            keyword = self._match(_KEYWORD)
            value = self._value()
            if keyword is None and named:
                raise self._wrong("arguments by place come first", self._sql[self._at :])
            if keyword is None:
                positional.append(value)
            elif named.setdefault(keyword[1].lower(), value) is not value:
                raise self._wrong("an argument is named twice", keyword[1])
        return positional, named

    def _value(self) -> Any:
        value: Any
        if (text := self._match(_STRING)) is not None:
            value = text[1].replace("''", "'")
        elif (items := self._match(_ARRAY)) is not None:
            value = self._numbers(items[1])
        elif (number := self._match(_NUMBER)) is not None:
            value = int(number[0][:20])
        elif (word := self._match(_WORD)) is not None:
            value = _WORDS[word[0].lower()]
        else:
            token = _LEXER.match(self._sql, self._at)
            name = None if token is None else self._parameter(token)
            if token is None or name is None:
                raise self._wrong("an argument is a literal or a parameter", self._sql[self._at :])
            self._at = token.end()
            value = self.given.take(name)
        self._match(_CAST)
        return value

    def _numbers(self, text: str) -> list[float]:
        try:
            return [float(one) for one in text.split(",")]
        except ValueError:
            raise self._wrong("a vector has numbers only", text) from None

    def _usage(self) -> str:
        mode = FUNCTIONS[self._function]
        more = "exact => true" if mode is SearchMode.VECTOR else "candidates => 200"
        return f"{self._function}('index', {_QUERY[mode]}, k, filter => 'sql', {more})"

    def _wrong(self, message: str, near: str) -> Exception:
        return invalid(
            message, function=self._function, near=near[:40], hint=f"write {self._usage()}"
        )

    def _call(self, slot: str, positional: list[Any], named: dict[str, Any]) -> Call:
        if not 2 <= len(positional) <= 3:
            raise self._wrong(
                "a search has an index, a query and k", f"{len(positional)} arguments"
            )
        if len(positional) == 3 and "k" in named:
            raise self._wrong("an argument is named twice", "k")
        index, query, k = (*positional, named.pop("k", K_DEFAULT))[:3]
        if not isinstance(index, str) or not index:
            raise self._wrong("the index of a search is a text", str(index))
        if isinstance(query, list):
            query = tuple(self._float(one) for one in query)
        elif not isinstance(query, str):
            raise self._wrong("the query of a search is a text or a vector", str(query))
        if not isinstance(query, str) and FUNCTIONS[self._function] is not SearchMode.VECTOR:
            raise self._wrong("words are searched for, not a vector", "a vector")
        options = {
            name: self._option(name, value) for name, value in named.items() if value is not None
        }
        return Call(slot, index, query, self._whole("k", k), options, self._function)

    def _float(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong("a vector has numbers only", str(value))
        return float(value) if abs(value) <= _FLOAT_MAX else math.copysign(math.inf, value)

    def _option(self, name: str, value: Any) -> Any:
        kind = _NAMED.get(name)
        if kind is None or (name in _OF_VECTORS and self._function == "text_search"):
            raise self._wrong("a search has no such argument", name)
        if kind is int:
            return self._whole(name, value)
        if not isinstance(value, kind):
            raise self._wrong(f"{name} is a {'text' if kind is str else 'boolean'}", str(value))
        return value

    def _whole(self, name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _INTEGER_MAX:
            raise self._wrong(f"{name} is a whole number", str(value))
        return value


def _matched(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    found = pattern.match(text, at)
    assert found is not None
    return found
