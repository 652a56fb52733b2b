"""Every function a statement may call: allowed by name, refused by default.

Names are those of PostgreSQL (a few of the engines', where both have them). What is here has been
run on both engines by the shared corpus (tests/conformance/corpus_sql.py).
"""

from __future__ import annotations

from typing import Final

from lakehouse.model.retrieval import SearchMode

AGGREGATES: Final = frozenset(
    """count sum avg min max stddev stddev_samp stddev_pop variance var_samp var_pop corr covar_pop
    covar_samp bool_and bool_or every string_agg array_agg median percentile_cont bit_and bit_or
    regr_slope regr_intercept regr_r2 regr_count any_value""".split()  # noqa: SIM905 - a list of words reads better
)
WINDOWS: Final = frozenset(
    """row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value
    nth_value""".split()  # noqa: SIM905 - a list of words reads better
)
SCALARS: Final = frozenset(
    """abs ceil ceiling floor round trunc sign sqrt cbrt exp ln log log10 log2 power pow mod pi
    degrees radians sin cos tan asin acos atan atan2 cot random gcd lcm greatest least nullif
    coalesce length char_length character_length octet_length lower upper trim ltrim rtrim btrim
    lpad rpad left right substring substr replace reverse repeat position strpos concat concat_ws
    split_part starts_with chr ascii translate md5 regexp_replace regexp_like to_hex
    string_to_array array_to_string array_length cardinality array date_trunc date_part extract
    now current_date current_timestamp localtimestamp make_date to_char to_date to_timestamp
    if case cast try_cast and or xor unnest generate_series exists any all overlay
    array_contains initcap cosine_distance l2_distance inner_product""".split()  # noqa: SIM905 - a list of words reads better
)
TABLES: Final = frozenset({"generate_series", "unnest"})
# Searches as tables: they are taken out of a statement before it is looked at.
SEARCHES: Final = {f"{mode.value}_search": mode for mode in SearchMode}
ALLOWED: Final = AGGREGATES | WINDOWS | SCALARS

# sqlglot's own names of parsed functions, where they differ from the one that was written.
SPELLED: Final = {
    "approx_distinct": "approx_count_distinct",
    "arrayagg": "array_agg",
    "arraysize": "array_length",
    "arraytostring": "array_to_string",
    "array_size": "array_length",
    "array_all": "all",
    "array_any": "any",
    "bitwise_and_agg": "bit_and",
    "bitwise_or_agg": "bit_or",
    "current_datetime": "localtimestamp",
    "date_from_parts": "make_date",
    "explode": "unnest",
    "exploding_generate_series": "generate_series",
    "explodinggenerateseries": "generate_series",
    "generateseries": "generate_series",
    "group_concat": "string_agg",
    "logical_and": "bool_and",
    "logical_or": "bool_or",
    "lower_hex": "to_hex",
    "hex": "to_hex",
    "pad": "lpad",
    "rand": "random",
    "regexp_ilike": "regexp_like",
    "str_position": "strpos",
    "str_to_date": "to_date",
    "str_to_time": "to_timestamp",
    "string_to_array": "string_to_array",
    "time_to_str": "to_char",
    "timestamp_trunc": "date_trunc",
    "to_char": "to_char",
    "ts_or_ds_to_date": "to_date",
    "unicode": "ascii",
    "unix_to_time": "to_timestamp",
    "variance_pop": "var_pop",
    "date_add": "extract",
}
