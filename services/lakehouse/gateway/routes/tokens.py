"""Service tokens: made once, shown once, revoked for good."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from lakehouse.contracts.tokens import (
    ListTokensRequest,
    RevokeTokenRequest,
    RevokeTokenResult,
    TokenService,
)
from lakehouse.gateway import examples
from lakehouse.gateway.auth import Operator
from lakehouse.gateway.bodies import TokenBody, read_json
from lakehouse.gateway.openapi import told, with_json
from lakehouse.gateway.replies import reply
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.shapes import (
    CreatedTokenShape,
    TokensShape,
    created_token_shape,
    token_shape,
)
from lakehouse.gateway.strict import StrictRoute

TokenId = Annotated[
    str,
    Path(
        description="The id within lh_<id>.<secret>.",
        examples=["01K5ZC1GQ0XW5T1T9Q0R8M7A2B"],
        max_length=1000,
    ),
]


def routes(tokens: TokenService, settings: GatewaySettings) -> APIRouter:
    """The routes of this noun over the contract; all need the scope operator."""
    router = APIRouter(tags=["tokens"], route_class=StrictRoute)

    @router.get("/tokens", **told("The tokens", TokensShape, examples.TOKENS))
    async def list_tokens(ctx: Operator) -> Response:
        """Names, scopes and ends of those that are neither revoked nor forgotten; no secrets."""
        result = await tokens.list(ctx, ListTokensRequest())
        return reply(TokensShape(tuple(token_shape(info) for info in result.tokens)))

    @router.post(
        "/tokens",
        **with_json(
            told("Make a token", CreatedTokenShape, examples.TOKEN, statuses=(201,)),
            TokenBody,
            examples.TOKEN_REQUEST,
        ),
    )
    async def create(ctx: Operator, request: Request) -> Response:
        """The answer holds the only copy of the secret."""
        body = await read_json(request, TokenBody, settings.json_bytes_max)
        return reply(created_token_shape(await tokens.create(ctx, body.request())), status=201)

    @router.delete("/tokens/{id}", **told("Revoke a token", RevokeTokenResult, examples.REVOKED))
    async def revoke(ctx: Operator, id: TokenId) -> Response:  # noqa: A002 - as the contract has it
        """It is refused from the next request on."""
        result = await tokens.revoke(ctx, RevokeTokenRequest(id))
        return reply(result, result.version)

    return router
