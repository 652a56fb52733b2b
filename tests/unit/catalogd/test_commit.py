"""``commit``: atomic, gated by requirements and rules, idempotent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model import changes as m
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.model.schema import Column, Schema
from lakehouse.table.fingerprint import fingerprint
from support_catalog import CARD, COLUMNS, CTX, commit, create, file_of, key_ctx


async def refused(catalog: Catalog, *changes: m.Change, **options: object) -> LakehouseError:
    """The refusal of a commit, which must leave no trace."""
    before = (await catalog.status(CTX, c.StatusRequest())).version
    with pytest.raises(LakehouseError) as caught:
        await commit(catalog, *changes, **options)  # type: ignore[arg-type]
    assert (await catalog.status(CTX, c.StatusRequest())).version == before
    return caught.value


async def test_a_commit_is_atomic_over_datasets_and_documents(
    catalog: Catalog, session: str
) -> None:
    doc = m.PutDocument("profile", "p", '{"a":1}')
    bad = create("D2", "two", file_of("nosession", "D2", "x"))
    error = await refused(catalog, *create("D1", "one"), doc, *bad)
    assert error.kind is ErrorKind.CONFLICT
    with pytest.raises(LakehouseError):
        await catalog.get(CTX, c.GetRequest("one"))
    good = create("D2", "two", file_of(session, "D2", "x"))
    version = await commit(catalog, *create("D1", "one"), doc, *good)
    for name in ("one", "two"):
        assert (await catalog.get(CTX, c.GetRequest(name))).dataset.version == version
    found = await catalog.documents(CTX, c.DocumentsRequest("profile", "p"))
    assert (found.documents[0].body, found.documents[0].version) == ('{"a":1}', version)


async def test_counts_and_totals_follow_the_files(catalog: Catalog, session: str) -> None:
    a, b = file_of(session, "D1", "a", 5), file_of(session, "D1", "b", 7)
    await commit(catalog, *create("D1", "t", a))
    await commit(catalog, m.AddFiles("D1", (b,)))
    dataset = (await catalog.get(CTX, c.GetRequest("t"))).dataset
    assert (dataset.files, dataset.row_count, dataset.size_bytes) == (2, 12, 105 + 107)
    await commit(catalog, m.RemoveFiles("D1", (a.key,)))
    new = file_of(session, "D1", "c", 1)
    dataset = (await catalog.get(CTX, c.GetRequest("t"))).dataset
    assert (dataset.files, dataset.row_count) == (1, 7)
    await commit(catalog, m.AddFiles("D1", (new,), replace=True, operation="replace"))
    files = (await catalog.files(CTX, c.PageRequest("t"))).files
    assert [(file.key, file.ordinal) for file in files] == [(new.key, 3)]
    last = (await catalog.versions(CTX, c.PageRequest("t"))).versions[0]
    assert (last.operation, last.files_added, last.files_removed, last.rows_removed) == (
        "replace",
        1,
        1,
        7,
    )


async def test_names_are_compared_without_case_and_form(catalog: Catalog) -> None:
    await commit(catalog, *create("D1", "Café Größe"))
    for other in ("CAFÉ GRÖSSE", "cafe\u0301 gro\u0308\u00dfe"):
        found = await catalog.get(CTX, c.GetRequest(other))
        assert found.dataset.name == "Café Größe"
    error = await refused(catalog, *create("D2", "café GRÖSSE"))
    assert error.kind is ErrorKind.ALREADY_EXISTS
    assert error.fields["dataset_id"] == "D1"


@pytest.mark.parametrize("name", ["../x", "a/b", "x\x00", "", " ", "a'b", "x" * 256])
async def test_bad_names_are_refused(catalog: Catalog, name: str) -> None:
    assert (await refused(catalog, *create("D1", name))).kind is ErrorKind.INVALID


async def test_requirements_fail_alone_with_conflict(catalog: Catalog, session: str) -> None:
    a = file_of(session, "D1", "a")
    at = await commit(catalog, *create("D1", "t", a, digest="sha"))
    put = m.PutDocument("k", "i", "{}")
    for need in (
        m.NameFree("T"),
        m.DatasetAt("D1", at - 1),
        m.DatasetAt("D9", at),
        m.SchemaIs("D1", "fp1:other"),
        m.InputsLive("D1", ("datasets/x/y/z",)),
        m.DigestAbsent("D1", "sha"),
        m.DocumentAt("k", "i", 7),
    ):
        error = await refused(catalog, put, needs=(need,))
        assert error.kind is ErrorKind.CONFLICT, need
    assert error.fields["version"] == 0
    good = (
        m.NameFree("u"),
        m.DatasetAt("D1", at),
        m.SchemaIs("D1", fingerprint(COLUMNS)),
        m.InputsLive("D1", (a.key,)),
        m.DigestAbsent("D1", "other"),
        m.DocumentAt("k", "i", 0),
    )
    await commit(catalog, put, needs=good)


async def test_a_digest_is_absent_again_once_its_rows_are_gone(
    catalog: Catalog, session: str
) -> None:
    await commit(catalog, *create("D1", "t", file_of(session, "D1", "a"), digest="one"))
    replaced = m.AddFiles("D1", (file_of(session, "D1", "b"),), replace=True, content_digest="two")
    await commit(catalog, replaced)
    need = (m.DigestAbsent("D1", "one"),)
    await commit(catalog, m.PutDocument("k", "i", "{}"), needs=need)
    error = await refused(
        catalog, m.PutDocument("k", "i", "{}"), needs=(m.DigestAbsent("D1", "two"),)
    )
    assert error.fields["content_digest"] == "two"
    # Compaction rewrites rows, it does not lose them.
    packed = file_of(session, "D1", "packed")
    old = file_of(session, "D1", "b").key
    await commit(catalog, m.AddFiles("D1", (packed,)), m.RemoveFiles("D1", (old,), "compact"))
    await refused(catalog, m.PutDocument("k", "i", "{}"), needs=(m.DigestAbsent("D1", "two"),))


async def test_rules_of_files(catalog: Catalog, session: str) -> None:
    a = file_of(session, "D1", "a")
    await commit(catalog, *create("D1", "t", a))
    other = replace(a, key=a.key.replace("a.parquet", "b.parquet"))
    for bad in (
        a,
        replace(other, sha256="nothex"),
        replace(other, rows=-1),
        replace(other, schema_id=2),
        replace(other, key="elsewhere/b.parquet"),
        replace(other, key="datasets/gone/D1/b.parquet"),
        replace(other, key="datasets/x/../y"),
    ):
        error = await refused(catalog, m.AddFiles("D1", (bad,)))
        assert error.kind in (ErrorKind.CONFLICT, ErrorKind.INVALID), bad
    for own in ("_catalog/c/1.json", "store.json", "datasets/a.parquet", other.key):
        error = await refused(catalog, m.AddFiles("D1", (replace(other, key=own, external=True),)))
        assert error.kind is ErrorKind.FORBIDDEN, own
    await refused(catalog, m.AddFiles("D1", (other, other)))
    await refused(catalog, m.RemoveFiles("D1", (other.key,)))
    foreign = replace(other, key="raw/b.parquet", external=True)
    await commit(catalog, m.AddFiles("D1", (other, foreign)))


async def test_an_unknown_bucket_is_refused(catalog: Catalog, session: str) -> None:
    file = replace(file_of(session, "D1", "a"), bucket="nowhere")
    error = await refused(catalog, *create("D1", "t", file))
    assert error.kind is ErrorKind.NOT_FOUND


async def test_rules_of_schemas(catalog: Catalog) -> None:
    await commit(catalog, *create("D1", "t"))
    wider = (*COLUMNS, Column(3, "more", "date"))
    good = m.SetSchema("D1", Schema(2, wider), fingerprint(wider))
    reused = (COLUMNS[0], Column(2, "name", "date"))
    for bad in (
        replace(good, schema=Schema(3, wider)),
        replace(good, fingerprint="fp1:" + "0" * 64),
        m.SetSchema("D1", Schema(2, reused), fingerprint(reused)),
        m.SetSchema("D1", Schema(2, ()), fingerprint(())),
        m.SetSchema("D1", Schema(2, (Column(1, "x", "varchar"),)), "fp1:"),
        m.SetPrimaryKey("D1", ("nope",)),
    ):
        await refused(catalog, bad)
    version = await commit(catalog, m.SetPrimaryKey("D1", ("id",)), good)
    dataset = (await catalog.get(CTX, c.GetRequest("t"))).dataset
    assert (dataset.schema.id, dataset.fingerprint, dataset.primary_key, dataset.version) == (
        2,
        fingerprint(wider),
        ("id",),
        version,
    )
    without_key = (COLUMNS[1],)
    await refused(catalog, m.SetSchema("D1", Schema(3, without_key), fingerprint(without_key)))


async def test_wrong_fingerprint_repeated_id_and_large_card_are_refused(catalog: Catalog) -> None:
    made = create("D1", "t")[0]
    assert isinstance(made, m.CreateDataset)
    for bad in (
        replace(made, fingerprint="fp1:" + "0" * 64),
        replace(made, dataset_id="../x"),
        replace(made, schema=Schema(2, COLUMNS)),
        replace(made, primary_key=("id", "id")),
        replace(made, card=replace(CARD, description="x" * 10_001)),
        replace(made, card=replace(CARD, freshness_sla_seconds=0)),
    ):
        assert (await refused(catalog, bad)).kind is ErrorKind.INVALID
    await commit(catalog, made)
    again = replace(made, name="other")
    assert (await refused(catalog, again)).kind is ErrorKind.ALREADY_EXISTS


async def test_scopes(catalog: Catalog, session: str) -> None:
    def ctx(scope: Scope) -> Context:
        return Context(Principal("p", (scope,)), "r")

    made = c.CommitRequest(create("D1", "t"))
    with pytest.raises(LakehouseError, match="scope write"):
        await catalog.commit(ctx(Scope.READ), made)
    await catalog.commit(ctx(Scope.WRITE), made)
    for change in (m.PutDocument("token", "x", "{}"), m.QuarantineDataset("D1", "x")):
        with pytest.raises(LakehouseError, match="scope operator"):
            await catalog.commit(ctx(Scope.WRITE), c.CommitRequest((change,)))
    for change in (m.Condemn(0, ()), m.CloseSession(session), m.OpenSession("s", "w", "r")):
        with pytest.raises(LakehouseError, match="a call of its own"):
            await catalog.commit(CTX, c.CommitRequest((change,)))
    with pytest.raises(LakehouseError, match="scope operator"):
        await catalog.documents(ctx(Scope.WRITE), c.DocumentsRequest("token"))
    with pytest.raises(LakehouseError, match="1 to 10,000"):
        await catalog.commit(CTX, c.CommitRequest(()))


async def test_a_key_has_one_effect_and_one_answer(catalog: Catalog) -> None:
    request = c.CommitRequest(create("D1", "t"))
    first = await catalog.commit(key_ctx("k"), request)
    again = await catalog.commit(key_ctx("k"), request)
    assert (again.version, first.replayed, again.replayed) == (first.version, False, True)
    with pytest.raises(LakehouseError) as caught:
        await catalog.commit(key_ctx("k"), c.CommitRequest(create("D2", "u")))
    assert (caught.value.kind, caught.value.http_status) == (ErrorKind.INVALID, 422)
    other = replace(key_ctx("k"), principal=Principal("somebody", (Scope.OPERATOR,)))
    await catalog.commit(other, c.CommitRequest(create("D2", "u")))


async def test_statistics_of_a_tenants_rows_stay_in_the_tenants_bucket(session: str) -> None:
    from support_catalog import build_house

    house = await build_house(extra=("tenant",))
    catalog = await house.open()
    opened = await catalog.session(CTX, c.SessionRequest("w", "ingestd"))
    files = [file_of(opened.session_id, "D1", "a"), file_of(opened.session_id, "D1", "b")]
    await commit(catalog, *create("D1", "t", files[0], replace(files[1], bucket="tenant")))
    found = (await catalog.files(CTX, c.PageRequest("t"))).files
    assert [len(file.stats) for file in found] == [2, 0]
    await house.close()


@pytest.mark.parametrize("kind", ["", "A", "1a", "a/b", "a b", "\u00e9", "a" * 65, "_a", "a\n"])
async def test_a_document_kind_has_a_form(catalog: Catalog, kind: str) -> None:
    error = await refused(catalog, m.PutDocument(kind, "i", "{}"))
    assert error.kind is ErrorKind.INVALID


async def test_documents_have_a_size_alone_and_together(catalog: Catalog) -> None:
    body = '"' + "x" * ((1 << 20) - 2) + '"'
    error = await refused(catalog, m.PutDocument("k", "i", body + " "))
    assert error.kind is ErrorKind.INVALID
    puts = [m.PutDocument("k", str(at), body) for at in range(9)]
    error = await refused(catalog, *puts)
    assert (error.kind, error.fields["max"]) == (ErrorKind.INVALID, 8 << 20)
    wide = '"' + "\u00e9" * ((1 << 19) - 1) + '"'
    more = m.PutDocument("k", "9", '"\u00e9"')
    error = await refused(catalog, *(m.PutDocument("k", str(at), wide) for at in range(8)), more)
    assert error.fields["max"] == 8 << 20
    await commit(catalog, *puts[:8])
