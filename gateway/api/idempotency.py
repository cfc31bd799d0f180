"""Idempotency-Key: a creation that is sent again answers what it answered, and makes nothing twice.

The answer is kept in the transaction of the creation. Some show a secret once: the answer is sealed with a
key made of the client's own, of which the store holds nothing, so that the store alone opens none. Two at
once, at any gateways, meet at a lock of the database; the later one is told to ask again.
"""

from __future__ import annotations

import hashlib
import secrets
from http import HTTPStatus
from typing import Annotated, Final, TypeVar
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Depends, Header, Request
from pydantic import BaseModel

from gateway.api.edge import note
from gateway.errors import Problem
from gateway.store import idempotency
from gateway.store.transaction import Transaction

# A UUID has 36. Fewer than 16 could be tried out by whoever has the store, or be taken twice by chance.
KEY_MIN: Final = 16
KEY_MAX: Final = 128
REPEAT_AFTER_S: Final = 1
_NONCE_BYTES: Final = 12

Answer = TypeVar("Answer", bound=BaseModel)


class Once:
    """What the request says about being sent again. Without a key each call does nothing."""

    def __init__(self, request: Request, key: str | None, body: bytes) -> None:
        self._request = request
        self._key = key
        parts = (request.method.encode(), request.url.path.encode(), body)
        self._fingerprint = hashlib.sha256(b"".join(len(p).to_bytes(8, "big") + p for p in parts)).digest()

    async def earlier(self, tx: Transaction, user_id: UUID, kind: type[Answer]) -> Answer | None:
        """What the same request answered in the last day; None: this is the first, do it.

        Ask when the person is known and may do it, before anything is written. 409 while the first is not
        done, 422 when the key came with another request.
        """
        if self._key is None:
            return None
        lookup = _derived(self._key, user_id, b"lookup")
        if not await idempotency.hold(tx, lookup):
            raise Problem(
                HTTPStatus.CONFLICT,
                "idempotency_key_in_use",
                "A request with this Idempotency-Key is being answered. Ask again.",
                retry_after_s=REPEAT_AFTER_S,
            )
        found = await idempotency.find(tx, lookup)
        if found is None:
            return None
        request, sealed = found
        if request != self._fingerprint:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "This Idempotency-Key was sent with another request. Make a new one for each.",
                field="Idempotency-Key",
            )
        note(self._request, "idempotency-replayed", "true")
        return kind.model_validate_json(self._open(sealed, user_id))

    async def keep(self, tx: Transaction, user_id: UUID, answer: Answer) -> Answer:
        """Remember the answer, with the transaction of what it tells."""
        if self._key is not None:
            nonce = secrets.token_bytes(_NONCE_BYTES)
            seal = AESGCM(_derived(self._key, user_id, b"seal"))
            sealed = nonce + seal.encrypt(nonce, answer.model_dump_json().encode(), self._fingerprint)
            await idempotency.add(tx, _derived(self._key, user_id, b"lookup"), self._fingerprint, sealed)
        return answer

    def _open(self, sealed: bytes, user_id: UUID) -> bytes:
        assert self._key is not None  # it was looked up by it
        seal = AESGCM(_derived(self._key, user_id, b"seal"))
        try:
            return seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._fingerprint)
        except InvalidTag as error:
            raise ValueError("an answer that was kept does not open: somebody changed the row") from error


async def _once(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=KEY_MIN,
            max_length=KEY_MAX,
            pattern=r"^[\x21-\x7e]+$",
            description="A new random one, such as a UUID, for each thing to make; sent again with the same"
            " body within a day it answers the same.",
        ),
    ] = None,
) -> Once:
    return Once(request, key, await request.body())


OnceOf = Annotated[Once, Depends(_once)]


def _derived(key: str, user_id: UUID, use: bytes) -> bytes:
    """32 bytes; what one use of it knows says nothing of the other's."""
    return hashlib.blake2b(key.encode(), key=user_id.bytes, person=use, digest_size=32).digest()
