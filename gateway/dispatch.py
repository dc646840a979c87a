"""Making a stream and putting its id into the queue."""

import asyncio
import hashlib
from dataclasses import dataclass

import msgspec

from gateway import metrics
from shared.broker.client import TROUBLE, Client, run
from shared.broker.keys import idempotency_entry_key
from shared.broker.owned import note_owned
from shared.broker.queue import enqueue
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable, IdempotencyConflict
from shared.protocol.ids import idempotency_digest, new_stream_id
from shared.schemas import ChatRequest, OnDisconnect
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Dispatched:
    stream_id: str
    created: bool  # False: the idempotency key already stood for this stream


class Dispatch:
    def __init__(self, client: Client, scripts: StreamScripts, settings: Settings) -> None:
        self._client = client
        self._scripts = scripts
        self._settings = settings

    async def dispatch(
        self,
        request: ChatRequest,
        *,
        body_hash: str,
        principal: str,
        idempotency_key: str | None,
        on_disconnect: OnDisconnect,
    ) -> Dispatched:
        """Make the stream, once per key, and queue it. Raises :class:`IdempotencyConflict` and
        :class:`BrokerUnavailable`; after the latter the same call with the same key is safe."""
        digest = idempotency_digest(principal, idempotency_key) if idempotency_key else None
        stream_id = new_stream_id(digest)
        fields = self._fields(request, principal, on_disconnect) | {"body_hash": body_hash}
        if digest:
            fields["idempotency"] = digest
        call = self._scripts.create(stream_id, fields=fields, body_hash=body_hash, idempotency=digest)
        # Beside each other, which is one exchange with Redis.
        created, _ = await asyncio.gather(run(self._client, call), self._note_owned(principal, stream_id))
        if created.known is not None:
            return _attached(*created.known, body_hash)
        metrics.STREAMS_CREATED.inc()
        await self.enqueue(stream_id)
        return Dispatched(stream_id, created=True)

    async def find(self, principal: str, idempotency_key: str, body_hash: str | None = None) -> Dispatched | None:
        """The stream that the key stands for already. Raises :class:`IdempotencyConflict` where a body is given and
        is another, and :class:`BrokerUnavailable`."""
        try:
            key = idempotency_entry_key(idempotency_digest(principal, idempotency_key))
            entry: bytes | None = await self._client.get(key)
        except TROUBLE as error:
            raise BrokerUnavailable from error
        if entry is None:
            return None
        stream_id, known_hash = entry.decode().split()
        return _attached(stream_id, known_hash, body_hash or known_hash)

    async def _note_owned(self, principal: str, stream_id: str) -> None:
        await note_owned(self._client, principal, stream_id, life_s=self._settings.retention_s)

    def _fields(
        self, request: ChatRequest, principal: str, on_disconnect: OnDisconnect
    ) -> dict[str, str | bytes | int]:
        grace_s = self._settings.grace_s if request.grace_s is None else request.grace_s
        return {
            "principal": principal,
            "provider": request.provider or "",
            "model": request.model,
            "request": request.model_dump_json(exclude_none=True),
            "prompt_characters": request.prompt_characters,
            "max_tokens": request.max_tokens or 0,
            "on_disconnect": request.on_disconnect or on_disconnect,
            "grace_ms": round(grace_s * 1000),
            "on_worker_lost": request.on_worker_lost,
            "metadata": msgspec.json.encode(request.metadata or {}),
        }

    async def enqueue(self, stream_id: str) -> bool:
        """As :func:`shared.broker.queue.enqueue`."""
        return await enqueue(self._client, stream_id, life_s=self._settings.retention_s)


def _attached(stream_id: str, known_hash: str, body_hash: str) -> Dispatched:
    if known_hash != body_hash:
        raise IdempotencyConflict("the Idempotency-Key was used before with another body")
    return Dispatched(stream_id, created=False)


def hash_of(request: ChatRequest) -> str:
    """Equal for equal requests, however their JSON was written."""
    return hashlib.sha256(request.model_dump_json(exclude_none=True).encode()).hexdigest()
