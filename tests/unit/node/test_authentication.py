"""Callers: the local operator, or whoever the token service says; a yes is remembered briefly."""

from __future__ import annotations

import pytest

from lakehouse.contracts.tokens import TokenService, VerifyTokenRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.ids import SystemIds
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context, Principal, Scope
from lakehouse.node.authentication import LocalOperator, TokenAuthenticator
from lakehouse.testing.clocks import ManualClock

ANN = Principal("ann", (Scope.READ,))


class Tokens:
    """Knows one token and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.valid = {"lh_a.secret"}

    async def verify(self, ctx: Context, request: VerifyTokenRequest) -> Principal:
        self.asked += 1
        if ctx.credential not in self.valid:
            raise LakehouseError(ErrorKind.UNAUTHENTICATED, "no")
        return ANN


def _authenticator(tokens: Tokens, clock: ManualClock, seconds: float) -> TokenAuthenticator:
    service: TokenService = tokens  # type: ignore[assignment]
    return TokenAuthenticator(service, clock, SystemIds(clock), seconds)


async def test_where_authentication_is_off_the_caller_is_the_operator() -> None:
    assert await LocalOperator().authenticate(None) == ANONYMOUS_OPERATOR


async def test_a_far_yes_is_remembered_for_five_seconds() -> None:
    clock, tokens = ManualClock(), Tokens()
    auth = _authenticator(tokens, clock, 5.0)
    for _ in range(3):
        assert await auth.authenticate("lh_a.secret") == ANN
    assert tokens.asked == 1
    tokens.valid.clear()
    await clock.advance(5.1)
    with pytest.raises(LakehouseError, match="no"):
        await auth.authenticate("lh_a.secret")


async def test_a_near_service_is_asked_every_time() -> None:
    clock, tokens = ManualClock(), Tokens()
    auth = _authenticator(tokens, clock, 0.0)
    assert await auth.authenticate("lh_a.secret") == ANN
    tokens.valid.clear()
    with pytest.raises(LakehouseError):
        await auth.authenticate("lh_a.secret")


@pytest.mark.parametrize("credential", [None, "", "lh_b.other"])
async def test_a_no_is_never_remembered(credential: str | None) -> None:
    tokens = Tokens()
    auth = _authenticator(tokens, ManualClock(), 5.0)
    for _ in range(2):
        with pytest.raises(LakehouseError):
            await auth.authenticate(credential)
    assert tokens.asked == 2
