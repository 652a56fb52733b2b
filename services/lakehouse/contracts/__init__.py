"""What roles promise one another: Protocols, their requests and answers, their documented errors.

One noun a file. A contract value is a frozen dataclass of: str, int, float, bool, bytes, datetime
(aware UTC), ``X | None``, StrEnum, other such dataclasses, ``tuple[X, ...]``, ``dict[str, str]``,
and unions of dataclasses, so that one generic mapper in rpc/ takes all of them to the wire.
JSON of any shape travels as text in a ``str`` field named ``..._json``.
"""
