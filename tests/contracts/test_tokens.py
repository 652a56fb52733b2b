"""The token contract, direct and over gRPC, where a token opens the door as well."""

from __future__ import annotations

import re
from typing import Any

import pytest

from contracts.world import OPERATOR, READER, WRITER, World
from lakehouse.contracts.catalog import DocumentsRequest
from lakehouse.contracts.tokens import (
    CreateTokenRequest,
    ListTokensRequest,
    RevokeTokenRequest,
    VerifyTokenRequest,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context, Principal, Scope

NOBODY = Principal("", ())


def bearing(token: str | None) -> Context:
    return Context(NOBODY, "request-1", credential=token)


async def refused(call: Any, kind: ErrorKind) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await call
    assert caught.value.kind is kind
    return caught.value


async def test_a_token_is_shown_once_and_opens_the_door(tokens: Any, here: World) -> None:
    request = CreateTokenRequest("nightly", (Scope.READ, Scope.WRITE))
    made = await tokens.create(OPERATOR, request)
    assert re.fullmatch(r"lh_[0-9A-Za-z]+\.[0-9A-Za-z_-]{32,}", made.token)
    assert made.token.startswith(f"lh_{made.info.id}.")
    assert (made.info.name, made.info.created_by) == ("nightly", "operator")
    assert made.token not in repr(made)
    who = await tokens.verify(bearing(made.token), VerifyTokenRequest())
    assert set(who.scopes) == {Scope.READ, Scope.WRITE}
    assert (who.allows(Scope.WRITE), who.allows(Scope.OPERATOR)) == (True, False)
    listed = await tokens.list(OPERATOR, ListTokensRequest())
    assert listed.tokens == (made.info,)
    # What is kept cannot be used: the secret stands in no document.
    kept = await here.near["catalog"].documents(OPERATOR, DocumentsRequest("token"))
    assert kept.documents
    assert made.token.partition(".")[2] not in repr(kept)


async def test_all_that_is_no_valid_token_looks_alike(tokens: Any, here: World) -> None:
    made = await tokens.create(OPERATOR, CreateTokenRequest("a", (Scope.READ,)))
    short = await tokens.create(OPERATOR, CreateTokenRequest("b", (Scope.READ,), 60))
    gone = await tokens.create(OPERATOR, CreateTokenRequest("c", (Scope.READ,)))
    await tokens.verify(bearing(short.token), VerifyTokenRequest())
    await tokens.revoke(OPERATOR, RevokeTokenRequest(gone.info.id))
    here.clock.ahead_us += 61_000_000
    wrong = made.token[:-1] + ("0" if made.token[-1] != "0" else "1")
    texts = set()
    for token in (
        *(None, "", "x", "lh_", "lh_.", f"lh_{made.info.id}.", f"lh_{made.info.id}", "lh_\u2603.a"),
        *(wrong, made.token + "0", "lh_nobody." + "0" * 64, short.token, gone.token),
    ):
        error = await refused(
            tokens.verify(bearing(token), VerifyTokenRequest()), ErrorKind.UNAUTHENTICATED
        )
        texts.add((error.message, repr(error.fields)))
    assert len(texts) == 1
    await tokens.verify(bearing(made.token), VerifyTokenRequest())


async def test_a_token_ends_where_it_was_said_to(tokens: Any) -> None:
    made = await tokens.create(OPERATOR, CreateTokenRequest("a", (Scope.READ,), 60))
    assert made.info.expires_at is not None
    assert (made.info.expires_at - made.info.created_at).total_seconds() == 60
    for request in (
        CreateTokenRequest("a", (Scope.READ,), 0),
        CreateTokenRequest("a", ()),
        CreateTokenRequest("", (Scope.READ,)),
    ):
        await refused(tokens.create(OPERATOR, request), ErrorKind.INVALID)


async def test_a_token_that_is_not_there_cannot_be_revoked(tokens: Any) -> None:
    made = await tokens.create(OPERATOR, CreateTokenRequest("a", (Scope.READ,)))
    result = await tokens.revoke(OPERATOR, RevokeTokenRequest(made.info.id))
    assert result.id == made.info.id
    await refused(tokens.revoke(OPERATOR, RevokeTokenRequest("nobody")), ErrorKind.NOT_FOUND)
    assert not (await tokens.list(OPERATOR, ListTokensRequest())).tokens


@pytest.mark.parametrize("ctx", [READER, WRITER], ids=["reader", "writer"])
async def test_tokens_are_the_operators(tokens: Any, ctx: Context) -> None:
    for call in (
        tokens.create(ctx, CreateTokenRequest("a", (Scope.READ,))),
        tokens.list(ctx, ListTokensRequest()),
        tokens.revoke(ctx, RevokeTokenRequest("a")),
    ):
        error = await refused(call, ErrorKind.FORBIDDEN)
        assert error.fields["required"] == "operator"
