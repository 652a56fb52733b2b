"""What DataFusion must be told for PostgreSQL's answer."""

from __future__ import annotations

from typing import Any, Final

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.generators.postgres import PostgresGenerator

from lakehouse.queryd.guard import function_name
from lakehouse.queryd.kinds import kind
from lakehouse.queryd.parse import invalid
from lakehouse.queryd.rewriting import (
    Rewrite,
    call,
    cast,
    distance,
    hole,
    kind_of_type,
    outermost,
    replace_outermost,
)

MICROS: Final = "Timestamp(Microsecond, None)"
MICROS_UTC: Final = 'Timestamp(Microsecond, Some("UTC"))'
TRUNCATED: Final = frozenset(
    ("year", "quarter", "month", "week", "day", "hour", "minute", "second")
)
_COMPARISONS: Final = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)
_ARITHMETIC: Final[dict[Any, str]] = {exp.Add: "lh_add", exp.Sub: "lh_sub", exp.Mul: "lh_mul"}
_TRUNC_PLACES_MAX: Final = 10
_DISTANCES: Final = {
    "cosine_distance": "cosine_distance",
    "l2_distance": "array_distance",
    "inner_product": "inner_product",
}
_FLOAT_ONLY: Final = {
    "sqrt": "lh_sqrt",
    "ln": "lh_ln",
    "log10": "lh_log10",
    "log2": "lh_log2",
    "atan2": "atan2",
}


def _strftime_format(node: exp.Expr) -> exp.Expr:
    return exp.Literal.string(str(node.args["format"].this))


class _DataFusionGenerator(PostgresGenerator):
    """DataFusion reads PostgreSQL's syntax; its formats of times are those of strftime."""

    TRANSFORMS = {  # noqa: RUF012 - sqlglot's own way to say it
        **PostgresGenerator.TRANSFORMS,
        exp.BitwiseXor: lambda self, e: self.binary(e, "^"),
        exp.TimeToStr: lambda self, e: self.func("to_char", e.this, _strftime_format(e)),
        exp.StrToDate: lambda self, e: self.func("to_date", e.this, _strftime_format(e)),
        exp.StrToTime: lambda self, e: self.func(
            "to_timestamp_micros", e.this, _strftime_format(e)
        ),
    }


class DataFusionSql(Postgres):
    """What ``_DataFusionGenerator`` writes."""

    Generator = _DataFusionGenerator


def rewrite_datafusion(node: exp.Expr) -> exp.Expr | None:
    """What stands for ``node``, or None to leave it as it is (or as it was changed in place)."""
    rule = _BY_TYPE.get(type(node))
    if rule is not None:
        return rule(node)
    if type(node) in _ARITHMETIC:
        return _checked(node)
    if isinstance(node, _COMPARISONS):
        _same_times(node)
    return distance(node, _DISTANCES) or _float_function(node)


def _checked(node: exp.Expr) -> exp.Expr | None:
    left, right = kind(node.this), kind(node.expression)
    if left == right == "int":
        return call(_ARITHMETIC[type(node)], node.this, node.expression)
    if left == "date" and isinstance(node.expression, exp.Interval):
        node.set("this", _micros(node.this.copy()))
    return None


def _micros(node: exp.Expr) -> exp.Expr:
    return call("arrow_cast", node, exp.Literal.string(MICROS))


def _divide(node: exp.Expr) -> exp.Expr | None:
    left, right = kind(node.this), kind(node.expression)
    if (left == right == "int") or not left or not right:
        return None
    divisor = node.expression
    parts = [cast(node.this, "DOUBLE"), cast(divisor, "DOUBLE")]
    if isinstance(divisor, exp.Literal) and float(divisor.this) != 0:
        return exp.Paren(this=exp.Div(this=parts[0], expression=parts[1]))
    return call("lh_div", *parts)


def _negate(node: exp.Expr) -> exp.Expr | None:
    if kind(node.this) == "int" and not isinstance(node.this, exp.Literal):
        return call("lh_neg", node.this)
    return None


def _absolute(node: exp.Expr) -> exp.Expr | None:
    return call("lh_abs", node.this) if kind(node.this) == "int" else None


def _cast_rule(node: exp.Expr) -> exp.Expr | None:
    if not isinstance(node, exp.Cast):
        return None
    source, target = kind(node.this), kind_of_type(node.to)
    if target == "timestamp":
        return _micros(node.this)
    if target == "zoned":
        return call("arrow_cast", node.this, exp.Literal.string(MICROS_UTC))
    if target == "int" and source == "decimal":
        node.set("this", exp.Round(this=node.this.copy()))
    elif target == "int" and source == "float":
        node.set("this", call("lh_rint", node.this.copy()))
    elif target in ("int", "float", "decimal") and source == "text":
        node.set("this", call("btrim", node.this.copy()))
    elif target == "text" and source in ("timestamp", "zoned"):
        spaced = call("replace", hole(), exp.Literal.string("T"), exp.Literal.string(" "))
        if source == "timestamp":
            return spaced
        return call("replace", spaced, exp.Literal.string("Z"), exp.Literal.string("+00"))
    return None


def _sum(node: exp.Expr) -> exp.Expr | None:
    """Integers are summed where they cannot wrap, and must then fit int64."""
    inner = node.this
    values = inner.expressions[0] if isinstance(inner, exp.Distinct) else inner
    if kind(values) != "int":
        return None
    values.replace(cast(values.copy(), "DECIMAL(38, 0)"))
    replace_outermost(node, lambda outer: cast(outer, "BIGINT"))
    return None


def _average(node: exp.Expr) -> exp.Expr | None:
    values = node.this
    if kind(values) != "decimal":
        return None
    if outermost(node) is not node or isinstance(values, exp.Distinct):
        node.set("this", cast(values.copy(), "DOUBLE"))
        return None
    total = cast(exp.Sum(this=values.copy()), "DOUBLE")
    count = cast(exp.Count(this=values.copy()), "DOUBLE")
    return exp.Paren(this=exp.Div(this=total, expression=count))


def _whole(node: exp.Expr) -> exp.Expr | None:
    """floor and ceil of a decimal have no digits after the point; of an integer, nothing to do."""
    if kind(node.this) == "decimal":
        return cast(hole(), "DECIMAL(38, 0)")
    return None


def _truncate(node: exp.Expr) -> exp.Expr | None:
    value, digits = node.this, node.args.get("decimals")
    if kind(value) != "decimal" or (digits is not None and not isinstance(digits, exp.Literal)):
        return None
    places = int(digits.this) if digits is not None else 0
    if places > _TRUNC_PLACES_MAX:
        return None
    scaled = value.copy()
    if places:
        factor = cast(exp.Literal.string("1" + "0" * places), f"DECIMAL({places + 1}, 0)")
        scaled = exp.Paren(this=exp.Mul(this=exp.Paren(this=scaled), expression=factor))
    negative = exp.LT(this=value.copy(), expression=exp.Literal.number(0))
    chosen = exp.Case(
        ifs=[exp.If(this=negative, true=exp.Ceil(this=scaled.copy()))],
        default=exp.Floor(this=scaled),
    )
    whole = cast(chosen, f"DECIMAL({38 - places}, 0)")
    if not places:
        return whole
    unit = cast(exp.Literal.string("0." + "0" * (places - 1) + "1"), f"DECIMAL({places}, {places})")
    return exp.Paren(this=exp.Mul(this=whole, expression=unit))


def _round(node: exp.Expr) -> exp.Expr | None:
    if kind(node.this) != "int":
        return None
    if not node.args.get("decimals"):
        return exp.Paren(this=node.this.copy())
    node.set("this", cast(node.this.copy(), "DOUBLE"))
    return cast(hole(), "BIGINT")


def _sign(node: exp.Expr) -> exp.Expr | None:
    return cast(call("signum", cast(node.this.copy(), "DOUBLE")), "BIGINT")


def _exists(node: exp.Expr) -> exp.Expr | None:
    """Outside a condition the engine has no EXISTS: count instead."""
    place = node.parent
    while place is not None and not isinstance(place, exp.Select):
        if isinstance(place, exp.Where | exp.Having | exp.Join):
            return None
        place = place.parent
    query = node.this.this if isinstance(node.this, exp.Subquery) else node.this
    source = exp.Subquery(
        this=query.copy(), alias=exp.TableAlias(this=exp.to_identifier("e", quoted=True))
    )
    counted = exp.Count(this=exp.Star())
    positive = exp.GT(this=counted, expression=exp.Literal.number(0))
    return exp.Subquery(this=exp.Select(expressions=[positive]).from_(source))


def _escape(node: exp.Expr) -> exp.Expr | None:
    """The engine knows the backslash alone as an escape."""
    like, escape = node.this, node.expression
    pattern = like.expression
    if not isinstance(pattern, exp.Literal) or not isinstance(escape, exp.Literal):
        raise invalid("on datafusion LIKE .. ESCAPE takes constants", hint='use engine "duckdb"')
    mark, text, out = str(escape.this), str(pattern.this), []
    index = 0
    while index < len(text):
        if text[index] == mark and index + 1 < len(text):
            out.append("\\" + text[index + 1])
            index += 2
            continue
        out.append("\\\\" if text[index] == "\\" else text[index])
        index += 1
    changed: exp.Expr = like.copy()
    changed.set("expression", exp.Literal.string("".join(out)))
    return changed


def _trunc_time(node: exp.Expr) -> exp.Expr | None:
    """The engine counts in nanoseconds here, which end in 2262; ours in microseconds."""
    unit = str(node.text("unit")).lower()
    source = kind(node.this)
    if unit not in TRUNCATED or source not in ("date", "timestamp", "zoned"):
        return None
    plain = call(f"lh_trunc_{unit}", _micros(node.this.copy()))
    if source == "zoned":
        return call("arrow_cast", plain, exp.Literal.string(MICROS_UTC))
    return plain


def _now(node: exp.Expr) -> exp.Expr | None:
    return call("arrow_cast", call("now"), exp.Literal.string(MICROS_UTC))


def _same_times(node: exp.Expr) -> None:
    """A date meets a timestamp in microseconds, not in the engine's nanoseconds."""
    kinds = (kind(node.this), kind(node.expression))
    if kinds == ("date", "timestamp"):
        node.set("this", _micros(node.this.copy()))
    elif kinds == ("timestamp", "date"):
        node.set("expression", _micros(node.expression.copy()))


def _float_function(node: exp.Expr) -> exp.Expr | None:
    if not isinstance(node, exp.Func):
        return None
    name = function_name(node)
    if name == "log":
        return _logarithm(node)
    if name not in _FLOAT_ONLY or (isinstance(node, exp.Anonymous) and node.name[:3] == "lh_"):
        return None
    arguments = (
        list(node.expressions)
        if isinstance(node, exp.Anonymous)
        else [node.args[key] for key in node.arg_types if node.args.get(key) is not None]
    )
    if isinstance(node, exp.Atan2) or name != "atan2":
        return call(_FLOAT_ONLY[name], *(cast(one.copy(), "DOUBLE") for one in arguments))
    return None


def _logarithm(node: exp.Expr) -> exp.Expr | None:
    value = node.args.get("expression")
    if value is None:
        return call("lh_log10", cast(node.this.copy(), "DOUBLE"))
    base, number = cast(node.this.copy(), "DOUBLE"), cast(value.copy(), "DOUBLE")
    # The engine's own log asks no questions: ours does, and adds nothing.
    nothing = exp.Mul(this=call("lh_ln", number.copy()), expression=exp.Literal.number(0))
    return call("log", base, exp.Add(this=number, expression=nothing))


def _remainder(node: exp.Expr) -> exp.Expr | None:
    if "float" not in (kind(node.this), kind(node.expression)):
        return None
    left, right = (cast(one.copy(), "DOUBLE") for one in (node.this, node.expression))
    node.set("expression", call("lh_not_zero", left, right))
    return None


def _local_time(node: exp.Expr) -> exp.Expr | None:
    return call("to_local_time", hole()) if kind(node.this) == "zoned" else None


def _series(node: exp.Expr) -> exp.Expr | None:
    if isinstance(node.parent, exp.Table | exp.Unnest | exp.From | exp.Lateral):
        return None
    return call("unnest", hole())


_BY_TYPE: Final[dict[Any, Rewrite]] = {
    exp.Div: _divide,
    exp.Mod: _remainder,
    exp.BitwiseNot: lambda node: exp.Paren(
        this=exp.Sub(this=exp.Literal.number("-1"), expression=node.this.copy())
    ),
    exp.AtTimeZone: _local_time,
    exp.GenerateSeries: _series,
    exp.ExplodingGenerateSeries: _series,
    exp.Neg: _negate,
    exp.Abs: _absolute,
    exp.Cast: _cast_rule,
    exp.Sum: _sum,
    exp.Avg: _average,
    exp.Floor: _whole,
    exp.Ceil: _whole,
    exp.Trunc: _truncate,
    exp.Round: _round,
    exp.Sign: _sign,
    exp.Exists: _exists,
    exp.Escape: _escape,
    exp.TimestampTrunc: _trunc_time,
    exp.DateTrunc: _trunc_time,
    exp.CurrentTimestamp: _now,
    exp.Localtimestamp: lambda node: _micros(call("now")),
    exp.Hex: lambda node: call("to_hex", node.this.copy()),
    exp.LowerHex: lambda node: call("to_hex", node.this.copy()),
}
