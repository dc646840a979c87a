"""Making a stream and putting its id into the queue."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from pydantic import SecretStr

from gateway import metrics
from gateway.auth.principal import Principal
from gateway.edge.request_log import current
from gateway.intake.admission import Admission, demand_of, refusal
from gateway.intake.backlog import Backlog
from shared.broker.client import REDIS_ERRORS, Client, run_script
from shared.broker.keys import idempotency_entry_key
from shared.broker.queue import enqueue, job_of
from shared.broker.replies import Created, Full, Known, Limited
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable, HeadraceError, IdempotencyConflict
from shared.protocol.ids import idempotency_digest, new_stream_id
from shared.schemas import ChatRequest, OnDisconnect
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Dispatched:
    """``admission`` is None where the idempotency key already stood for this stream. ``place``: in the queue, 1 for
    the next; 0 where that is not known."""

    stream_id: str
    admission: Admission | None
    place: int = 0

    @property
    def created(self) -> bool:
        return self.admission is not None


class Dispatch:
    def __init__(self, client: Client, scripts: StreamScripts, settings: Settings, backlog: Backlog) -> None:
        self._client = client
        self._scripts = scripts
        self._settings = settings
        self._backlog = backlog

    async def dispatch(
        self,
        asked: ChatRequest,
        *,
        body_hash: str,
        principal: Principal,
        idempotency_key: str | None,
        on_disconnect: OnDisconnect,
        more: Mapping[str, str],
    ) -> Dispatched:
        """Make the stream, once per key, and queue it. ``more``: further fields of its state. Raises
        :class:`InvalidRequest`, :class:`LimitReached`, :class:`QueueFull`, :class:`IdempotencyConflict` and
        :class:`BrokerUnavailable`; after the last the same call with the same key is safe."""
        demand = demand_of(principal, asked, self._settings)
        self._backlog.check()
        digest = idempotency_digest(principal.id, idempotency_key) if idempotency_key else None
        stream_id = new_stream_id(digest)
        fields = self._fields(asked, principal.id, on_disconnect) | {"body_hash": body_hash, **more}
        if digest:
            fields["idempotency"] = digest
        call = self._scripts.create(
            stream_id, fields=fields, body_hash=body_hash, idempotency=digest, demand=demand, job=job_of(stream_id)
        )
        match await run_script(self._client, call):
            case Known(known_id, known_hash):
                return _attached(known_id, known_hash, body_hash)
            case Limited() as limited:
                raise _counted(refusal(demand, limited))
            case Full(waiting):
                raise _counted(self._backlog.refusal(f"{waiting} requests wait already"))
            case Created(place, used):
                metrics.STREAMS_CREATED.inc()
                return Dispatched(stream_id, Admission(demand, used), place)

    async def find(self, principal: str, idempotency_key: str, body_hash: str | None = None) -> Dispatched | None:
        """The stream that the key stands for already. Raises :class:`IdempotencyConflict` where a body is given and
        is another, and :class:`BrokerUnavailable`."""
        try:
            key = idempotency_entry_key(idempotency_digest(principal, idempotency_key))
            entry: bytes | None = await self._client.get(key)
        except REDIS_ERRORS as error:
            raise BrokerUnavailable from error
        if entry is None:
            return None
        stream_id, known_hash = entry.decode().split()
        return _attached(stream_id, known_hash, body_hash or known_hash)

    def _fields(
        self, asked: ChatRequest, principal: str, on_disconnect: OnDisconnect
    ) -> dict[str, str | bytes | int]:
        grace_s = self._settings.grace_s if asked.grace_s is None else asked.grace_s
        record = current()
        return {
            # What joins the worker's lines and spans to this request's.
            "request_id": record.request_id if record else "",
            "traceparent": record.span.traceparent if record else "",
            "principal": principal,
            "provider": asked.provider or "",
            "model": asked.model,
            "request": asked.model_dump_json(exclude_none=True),
            "prompt_characters": asked.prompt_characters,
            "max_tokens": asked.max_tokens or 0,
            "on_disconnect": asked.on_disconnect or on_disconnect,
            "grace_ms": round(grace_s * 1000),
            "on_worker_lost": asked.on_worker_lost,
            "metadata": msgspec.json.encode(asked.metadata or {}),
        }

    async def enqueue(self, stream_id: str) -> bool:
        """As :func:`shared.broker.queue.enqueue`, for a stream whose job may be lost."""
        return await enqueue(self._client, stream_id, life_s=self._settings.unended_s)


def _attached(stream_id: str, known_hash: str, body_hash: str) -> Dispatched:
    if known_hash != body_hash:
        raise IdempotencyConflict("the Idempotency-Key was used before with another body")
    return Dispatched(stream_id, None)


def _counted(error: HeadraceError) -> HeadraceError:
    metrics.REFUSALS.labels(error.code).inc()
    return error


def hash_of(request: ChatRequest, secret: SecretStr | None) -> str:
    """Equal for equal requests, however their JSON was written; to guess a request from it takes the secret."""
    key = secret.get_secret_value().encode() if secret else b""
    return hmac.digest(key, request.model_dump_json(exclude_none=True).encode(), "sha256").hex()
