"""The rows of a dataset as they were at any version: from those of now and the journal's Parquet.

Nothing of the lakehouse is imported, and no node is asked: DuckDB over plain files.

    python walk_back.py now.parquet files.json BUCKET_FOLDER KEY[,KEY] VERSION [KEY_VALUE ...]

files.json     the list of objects:   GET /catalog/datasets/people/files
now.parquet    the rows, as of its version:  POST /query/sql  {"sql": "select * from people", ..}
BUCKET_FOLDER  where those objects are (a local bucket, or a copy of one)

Prints the rows at VERSION as lines of JSON, or the one row with the given key.
"""

import json
import sys
from pathlib import Path

import duckdb

EVENTS = """
create temp table later as
with events as (
    -- What was written with its change has no version yet: it is that of its object.
    select coalesce(e.version, f.seq) as version, e.* exclude (version)
    from read_parquet($paths, filename = true) e join files f on f.path = e.filename
), changes as (
    select version, ordinal, kind, entity, field, old from events where kind in ('update', 'delete')
    union all
    select version, ordinal, kind, unnest(entities), null, null from events where kind = 'insert'
)
select * from changes where version > $version
"""

# What happened to a row first; and when the life ended that it had at the version, if it did.
LIVES = """
create temp table lives as
select entity, first(kind order by version, ordinal) as kind,
       min(version) filter (kind = 'delete') as deleted, {keys}
from later group by entity
"""

# Each field was what the first event of that life says it was before.
BEFORE = """
create temp table before as
select entity, field, first(old order by version, ordinal) as old
from later join lives using (entity)
where lives.kind <> 'insert' and field is not null and (deleted is null or version <= deleted)
group by entity, field
"""

ROWS = """
with was as (
    select entity, any_value(deleted) as deleted, {pivot}
    from lives left join before using (entity) where lives.kind <> 'insert' group by entity
)
select {fields} from was join lives using (entity) left join now on {same_key}
union all
select {columns} from now anti join lives on {same_key}
"""


def value(text: str, kind: str) -> str:
    """SQL that reads a JSON text as a value of the DuckDB type ``kind``."""
    plain = f"json_extract_string({text}, '$')"
    if kind == "BLOB":
        return f"from_base64({plain})"
    if kind == "DOUBLE":
        return f"case when {plain} like 'NaN%' then 'NaN'::double else {plain}::double end"
    if kind.startswith("MAP("):
        pairs = f"cast({text} as json)"
        return (
            f"case when {text} is not null then cast(map("
            f"json_extract({pairs}, '$[*][0]'), json_extract({pairs}, '$[*][1]')) as {kind}) end"
        )
    if kind.startswith("STRUCT(") or kind.endswith("[]"):
        return f"cast(cast({text} as json) as {kind})"
    return f"cast({plain} as {kind})"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def rows_at(
    con: duckdb.DuckDBPyConnection,
    now: str,
    files: list[tuple[str, int]],
    key: list[str],
    version: int,
) -> duckdb.DuckDBPyRelation:
    """The rows at ``version``. ``now``: path of the rows as they are; ``files``: path and seq of
    every event object; ``key``: the columns of the primary key, in its order."""
    for table in ("now", "files", "later", "lives", "before"):
        con.execute(f"drop table if exists {table}")
    con.execute("set timezone = 'UTC'")
    con.execute("create temp table now as select * from read_parquet($now)", {"now": now})
    types = dict(row[:2] for row in con.execute("describe now").fetchall())
    con.execute("create temp table files (path varchar, seq bigint)")
    if not files:
        return con.table("now")
    con.executemany("insert into files values (?, ?)", files)
    con.execute(EVENTS, {"paths": [path for path, _ in files], "version": version})
    part = [f"json_extract(entity, '$[{at}]')" for at in range(len(key))]
    keys = [
        f"{value(text, types[name])} as k{at}"
        for at, (name, text) in enumerate(zip(key, part, strict=True))
    ]
    con.execute(LIVES.format(keys=", ".join(keys)))
    con.execute(BEFORE)
    pivot, fields = [], []
    for at, (name, kind) in enumerate(types.items()):
        literal = "'" + name.replace("'", "''") + "'"
        pivot.append(f"bool_or(field = {literal}) as has{at}")
        pivot.append(f"any_value(old) filter (field = {literal}) as old{at}")
        if name in key:
            fields.append(f"lives.k{key.index(name)} as {quoted(name)}")
            continue
        fields.append(
            f"case when has{at} then {value(f'old{at}', kind)}"
            f" when was.deleted is null then now.{quoted(name)} end as {quoted(name)}"
        )
    return con.sql(
        ROWS.format(
            pivot=", ".join(pivot),
            fields=", ".join(fields),
            columns=", ".join(f"now.{quoted(name)}" for name in types),
            same_key=" and ".join(f"now.{quoted(n)} = lives.k{i}" for i, n in enumerate(key)),
        )
    )


def main(now: str, listing: str, folder: str, keys: str, version: str, *wanted: str) -> None:
    known = json.loads(Path(listing).read_text())
    if known["next"]:
        sys.exit("the list of objects goes on: ask for the next page (?cursor=) and join them")
    events = [file for file in known["files"] if file["content"] == "events"]
    files = [(str(Path(folder) / file["key"]), file["seq"]) for file in events]
    key = keys.split(",")
    rows = rows_at(duckdb.connect(), now, files, key, int(version))
    for name, text in zip(key, wanted, strict=False):
        literal = text.replace("'", "''")
        rows = rows.filter(f"{quoted(name)} = '{literal}'")
    columns = ", ".join(quoted(name) for name in rows.columns)
    for (line,) in rows.query(
        "found", f"select to_json(r) from (select {columns} from found) r"
    ).fetchall():
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
