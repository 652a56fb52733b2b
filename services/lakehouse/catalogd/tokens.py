"""Service tokens: documents of kind ``token`` that hold the hash of a secret, never the secret."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from contextlib import suppress
from typing import Final

import orjson

from lakehouse.catalogd.core import request_sha256
from lakehouse.catalogd.sessions import SYSTEM
from lakehouse.contracts import tokens as c
from lakehouse.contracts.catalog import CatalogService, CommitRequest, Document, DocumentsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock, to_datetime, to_micros
from lakehouse.kit.ids import Ids
from lakehouse.model.changes import DeleteDocument, DocumentAt, PutDocument
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.model.refs import check_name

__all__ = ["Tokens"]

log = logging.getLogger(__name__)
_KIND: Final = "token"
_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_FORM: Final = re.compile(r"lh_([0-9a-f]{16})\.([0-9a-f]{64})")
_NOBODY: Final = hashlib.sha256(b"").hexdigest()
_EXPIRES_SECONDS_MAX: Final = 10 * 366 * 24 * 3600


def _hashed(secret: str) -> str:
    """The secret is 256 random bits: a slow hash would add nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _refused() -> LakehouseError:
    """One error for missing, malformed, unknown, wrong, expired and revoked."""
    return LakehouseError(
        ErrorKind.UNAUTHENTICATED,
        "a valid token is needed",
        hint="send authorization: bearer lh_<id>.<secret>; make one with lakehouse token create",
    )


def _made_before(token_id: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.ALREADY_EXISTS,
        "this request has made a token; its secret was shown once and is not kept",
        token_id=token_id,
        hint="if the first answer is lost, revoke that token and make another with a new key",
    )


def _info(document: Document) -> c.TokenInfo:
    """Raises ``corrupt`` for a document that no token of ours is: operators may put any."""
    try:
        body = orjson.loads(document.body)
        expires = body["expires_us"]
        texts = (body["name"], body["created_by"], body["sha256"])
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a text is none")
        return c.TokenInfo(
            id=document.id,
            name=body["name"],
            scopes=tuple(Scope(scope) for scope in body["scopes"]),
            created_at=to_datetime(body["created_us"]),
            created_by=body["created_by"],
            expires_at=None if expires is None else to_datetime(expires),
        )
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise LakehouseError(
            ErrorKind.CORRUPT, "a token document is malformed", id=document.id
        ) from error


class Tokens:
    """Implements ``contracts.tokens.TokenService`` over the documents of a catalog."""

    def __init__(self, catalog: CatalogService, clock: Clock, ids: Ids) -> None:
        self._catalog = catalog
        self._clock = clock
        self._ids = ids
        self._inside = Context(principal=SYSTEM, request_id="tokens")

    async def create(self, ctx: Context, request: c.CreateTokenRequest) -> c.CreatedToken:
        """Make a token. Its secret is not kept, so a retry with the same idempotency key makes no
        other and cannot show this one again: it raises ``already_exists`` naming the id."""
        ctx.require(Scope.OPERATOR)
        name = check_name(request.name, "token name")
        expires = request.expires_seconds
        if not request.scopes or len(set(request.scopes)) != len(request.scopes):
            raise LakehouseError(
                ErrorKind.INVALID,
                "a token needs one or more distinct scopes",
                allowed=[scope.value for scope in Scope],
            )
        if expires is not None and not 1 <= expires <= _EXPIRES_SECONDS_MAX:
            raise LakehouseError(
                ErrorKind.INVALID,
                "a token expires in 1 second to 10 years, or never",
                expires_seconds=expires,
            )
        token_id, secret = self._ids.token(_ID_BYTES), self._ids.token(_SECRET_BYTES)
        now_us = self._clock.now_us()
        expires_us = None if expires is None else now_us + expires * 1_000_000
        body = {
            "name": name,
            "scopes": [scope.value for scope in request.scopes],
            "sha256": _hashed(secret),
            "created_us": now_us,
            "created_by": ctx.principal.id,
            "expires_us": expires_us,
        }
        put = PutDocument(_KIND, token_id, orjson.dumps(body).decode())
        commit = CommitRequest(
            (put,),
            (DocumentAt(_KIND, token_id, 0),),
            request_sha256=request_sha256(request),
            answer_json=orjson.dumps({"id": token_id}).decode(),
            route="token create",
        )
        done = await self._catalog.commit(ctx, commit)
        if done.replayed:
            raise _made_before(orjson.loads(done.answer_json)["id"])
        info = _info(Document(_KIND, token_id, put.body, done.version))
        return c.CreatedToken(info=info, token=f"lh_{token_id}.{secret}")

    async def list(self, ctx: Context, request: c.ListTokensRequest) -> c.ListTokensResult:
        """All tokens that are not revoked, expired ones too; oldest first. Documents that are no
        tokens are left out, and counted in the log: they let nobody in."""
        ctx.require(Scope.OPERATOR)
        found = await self._catalog.documents(ctx, DocumentsRequest(_KIND))
        infos: list[c.TokenInfo] = []
        for each in found.documents:
            with suppress(LakehouseError):
                infos.append(_info(each))
        malformed = len(found.documents) - len(infos)
        if malformed:
            log.warning("malformed token documents let nobody in", extra={"documents": malformed})
        return c.ListTokensResult(tuple(sorted(infos, key=lambda info: info.created_at)))

    async def revoke(self, ctx: Context, request: c.RevokeTokenRequest) -> c.RevokeTokenResult:
        """From the answer on the token is refused. Raises ``not_found``."""
        ctx.require(Scope.OPERATOR)
        change = DeleteDocument(_KIND, request.id)
        commit = CommitRequest((change,), route="token revoke")
        done = await self._catalog.commit(ctx, commit)
        return c.RevokeTokenResult(request.id, done.version)

    async def verify(self, ctx: Context, request: c.VerifyTokenRequest) -> Principal:
        """Who ``ctx.credential`` is; reads memory alone."""
        form = _FORM.fullmatch(ctx.credential or "")
        if form is None:
            raise _refused()
        token_id, secret = form.groups()
        try:
            found = await self._catalog.documents(self._inside, DocumentsRequest(_KIND, token_id))
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            hmac.compare_digest(_NOBODY, _hashed(secret))
            raise _refused() from None
        document = found.documents[0]
        try:
            info = _info(document)
        except LakehouseError:
            raise _refused() from None
        body = orjson.loads(document.body)
        right = hmac.compare_digest(str(body["sha256"]), _hashed(secret))
        expired = info.expires_at is not None and (
            to_micros(info.expires_at) <= self._clock.now_us()
        )
        if not right or expired:
            raise _refused()
        return Principal(id=f"token:{token_id}", scopes=info.scopes)
