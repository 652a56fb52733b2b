"""Service tokens: shown once, stored hashed, refused alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lakehouse.catalogd.service import Catalog
from lakehouse.catalogd.tokens import Tokens
from lakehouse.contracts import catalog as c
from lakehouse.contracts import tokens as t
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.changes import PutDocument
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.testing.clocks import ManualClock
from support_catalog import CTX, House, build_house, commit, key_ctx

NOBODY = Context(Principal("anonymous", ()), "r")


@pytest.fixture
def tokens(house: House, catalog: Catalog) -> Tokens:
    return Tokens(catalog, house.clock, house.ids)


async def verified(tokens: Tokens, credential: str | None) -> Principal:
    return await tokens.verify(replace(NOBODY, credential=credential), t.VerifyTokenRequest())


async def test_a_token_is_who_it_says(tokens: Tokens, house: House) -> None:
    made = await tokens.create(CTX, t.CreateTokenRequest("ci", (Scope.READ, Scope.WRITE)))
    who = await verified(tokens, made.token)
    assert (who.id, who.scopes) == (f"token:{made.info.id}", (Scope.READ, Scope.WRITE))
    (listed,) = (await tokens.list(CTX, t.ListTokensRequest())).tokens
    assert listed == made.info
    secret = made.token.split(".")[1]
    assert secret not in repr(made)
    for meta in await house.store.list():
        assert secret.encode() not in await house.store.get(meta.key)


async def test_wrong_tokens_are_refused_alike(tokens: Tokens) -> None:
    made = await tokens.create(CTX, t.CreateTokenRequest("ci", (Scope.READ,)))
    head, secret = made.token.split(".")
    revoked = await tokens.create(CTX, t.CreateTokenRequest("old", (Scope.READ,)))
    await tokens.revoke(CTX, t.RevokeTokenRequest(revoked.info.id))
    bad = [
        None,
        "",
        "x",
        head,
        f"{head}.{'0' * 64}",
        f"lh_{'0' * 16}.{secret}",
        made.token + "x",
        made.token.upper(),
        f"Bearer {made.token}",
        revoked.token,
    ]
    errors = []
    for credential in bad:
        with pytest.raises(LakehouseError) as caught:
            await verified(tokens, credential)
        errors.append((caught.value.kind, caught.value.message, str(caught.value.fields)))
    assert set(errors) == {errors[0]}
    assert errors[0][0] is ErrorKind.UNAUTHENTICATED


async def test_tokens_expire_and_survive_a_restart() -> None:
    clock = ManualClock()
    house = await build_house(clock)
    first = Tokens(await house.open(), clock, house.ids)
    short = await first.create(CTX, t.CreateTokenRequest("s", (Scope.READ,), 60))
    long = await first.create(CTX, t.CreateTokenRequest("l", (Scope.OPERATOR,)))
    second = Tokens(await house.open(), clock, house.ids)
    assert (await verified(second, short.token)).scopes == (Scope.READ,)
    clock.jump(60)
    with pytest.raises(LakehouseError):
        await verified(second, short.token)
    assert (await verified(second, long.token)).scopes == (Scope.OPERATOR,)
    await house.close()


async def test_only_operators_manage_tokens(tokens: Tokens) -> None:
    writer = Context(Principal("w", (Scope.WRITE,)), "r")
    for call in (
        tokens.create(writer, t.CreateTokenRequest("x", (Scope.READ,))),
        tokens.list(writer, t.ListTokensRequest()),
        tokens.revoke(writer, t.RevokeTokenRequest("x")),
    ):
        with pytest.raises(LakehouseError) as caught:
            await call
        assert caught.value.kind is ErrorKind.FORBIDDEN


async def test_bad_requests(tokens: Tokens) -> None:
    for request in (
        t.CreateTokenRequest("", (Scope.READ,)),
        t.CreateTokenRequest("x", ()),
        t.CreateTokenRequest("x", (Scope.READ, Scope.READ)),
        t.CreateTokenRequest("x", (Scope.READ,), 0),
        t.CreateTokenRequest("x", (Scope.READ,), 10**12),
    ):
        with pytest.raises(LakehouseError) as caught:
            await tokens.create(CTX, request)
        assert caught.value.kind is ErrorKind.INVALID
    with pytest.raises(LakehouseError) as caught:
        await tokens.revoke(CTX, t.RevokeTokenRequest("nope"))
    assert caught.value.kind is ErrorKind.NOT_FOUND


async def test_a_retried_create_makes_no_other_token(tokens: Tokens, catalog: Catalog) -> None:
    request = t.CreateTokenRequest("ci", (Scope.READ,))
    made = await tokens.create(key_ctx("k"), request)
    with pytest.raises(LakehouseError) as caught:
        await tokens.create(key_ctx("k"), request)
    assert caught.value.kind is ErrorKind.ALREADY_EXISTS
    assert caught.value.fields["token_id"] == made.info.id
    assert "revoke" in str(caught.value.fields["hint"])
    assert len((await tokens.list(CTX, t.ListTokensRequest())).tokens) == 1
    assert (await verified(tokens, made.token)).scopes == (Scope.READ,)


async def test_a_key_of_one_call_is_free_for_another(tokens: Tokens) -> None:
    made = await tokens.create(key_ctx("k"), t.CreateTokenRequest("ci", (Scope.READ,)))
    gone = await tokens.revoke(key_ctx("k"), t.RevokeTokenRequest(made.info.id))
    assert await tokens.revoke(key_ctx("k"), t.RevokeTokenRequest(made.info.id)) == gone


async def test_tokens_do_not_show_among_documents_to_readers(
    tokens: Tokens, catalog: Catalog
) -> None:
    await tokens.create(CTX, t.CreateTokenRequest("ci", (Scope.READ,)))
    reader = Context(Principal("r", (Scope.READ,)), "r")
    with pytest.raises(LakehouseError) as caught:
        await catalog.documents(reader, c.DocumentsRequest("token"))
    assert caught.value.kind is ErrorKind.FORBIDDEN


async def test_a_malformed_token_document_hides_no_other(tokens: Tokens, catalog: Catalog) -> None:
    made = await tokens.create(CTX, t.CreateTokenRequest("ci", (Scope.READ,)))
    bad_id = "0" * 16
    for body in ("{}", "[1]", "null", '{"expires_us":1}', '"x"'):
        await commit(catalog, PutDocument("token", bad_id, body))
        listed = await tokens.list(CTX, t.ListTokensRequest())
        assert [each.id for each in listed.tokens] == [made.info.id]
        with pytest.raises(LakehouseError) as caught:
            await verified(tokens, f"lh_{bad_id}.{'0' * 64}")
        assert caught.value.kind is ErrorKind.UNAUTHENTICATED
    await tokens.revoke(CTX, t.RevokeTokenRequest(bad_id))
