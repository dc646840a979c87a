"""Creates and queues a stream, once per idempotency key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from gateway import metrics
from gateway.auth.principal import Principal
from gateway.edge.request_log import current_request_log
from gateway.intake.admission import Admission, demand_of, refusal, size_of
from gateway.intake.backlog import Backlog
from gateway.intake.body_memory import run_beside_loop
from gateway.intake.budgets import RequestBudgets, budget_refusal, warn
from gateway.intake.storage import Storage
from shared.broker.client import Client, run_commands, run_script
from shared.broker.creation import BucketUnavailable, NewStream, create, requeue
from shared.broker.declarations import Call
from shared.broker.desk_replies import Created, Ended, Full, Limited, OverBudget, SourceGone, Stored
from shared.broker.keys import idempotency_entry_key, request_key, state_key
from shared.broker.replies import Known, Lost, Unstored, WriteReply
from shared.broker.scripts import Fields, StreamScripts
from shared.errors import (
    BrokerFull,
    BrokerUnavailable,
    HeadraceError,
    IdempotencyConflict,
    InvalidRequest,
    LimitReached,
    StreamGone,
)
from shared.protocol.ids import START, idempotency_digest, new_stream_id
from shared.rate_limits import Demand
from shared.schemas import ChatRequest, OnDisconnect
from shared.schemas.stored_request import encode_request
from shared.settings import Settings

_TRIES_FOR_ROOM: Final = 5
_MOST_DRAWN: Final = 100
_Reply = Created | Known | Limited | OverBudget | Full | SourceGone | Ended


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A queued stream. ``admission``: None if the idempotency key already belonged to this stream.
    ``queue_position``: 1 is next, 0 is unknown."""

    stream_id: str
    admission: Admission | None
    queue_position: int = 0


class Dispatch:
    """Creates streams in Redis, within the limits of their principals and of the queue."""

    def __init__(
        self,
        client: Client,
        scripts: StreamScripts,
        settings: Settings,
        backlog: Backlog,
        storage: Storage,
        budgets: RequestBudgets,
    ) -> None:
        self._client = client
        self._scripts = scripts
        self._settings = settings
        self._backlog = backlog
        self._storage = storage
        self._budgets = budgets

    async def dispatch(
        self,
        chat_request: ChatRequest,
        *,
        body_hash: str,
        principal: Principal,
        idempotency_key: str | None,
        on_disconnect: OnDisconnect,
        extra_fields: Mapping[str, str],
        stream_id: str | None = None,
    ) -> Dispatched:
        """Create the stream, once per key, and queue it. ``extra_fields``: further fields of its state.
        ``stream_id``: None for a new id. Raises :class:`InvalidRequest`, :class:`LimitReached`,
        :class:`BudgetReached`, :class:`PriceUnknown`, :class:`QueueFull`, :class:`IdempotencyConflict` and
        :class:`BrokerUnavailable`. After the last the call may be repeated with the same key."""
        prompt_characters = chat_request.prompt_characters
        demand = demand_of(principal, chat_request, prompt_characters, self._settings)
        limits = replace(demand.limits, stored_bytes=await self._storage.limit_of(demand.limits))
        size = size_of(chat_request, prompt_characters, self._settings)
        reservations = self._budgets.reservations(principal, chat_request, size)
        demand = replace(demand, limits=limits, reservations=reservations)
        digest = idempotency_digest(principal.id, idempotency_key) if idempotency_key else None
        more = {"body_hash": body_hash, **extra_fields, "prompt_characters": str(prompt_characters)}
        more["expected_tokens"] = str(demand.tokens)
        more |= {"idempotency": digest} if digest else {}
        more |= {"key_id": principal.key_id} if principal.key_id else {}
        is_slow = self._backlog.is_slow(is_batch="priority" in extra_fields)

        async def try_to_create(stream_id: str) -> _Reply:
            fields, pieces = await run_beside_loop(
                self._fields, stream_id, chat_request, principal.id, on_disconnect, more
            )
            new = NewStream(stream_id, fields, body_hash, digest, demand, is_queue_slow=is_slow)
            reply = await self._create(new, pieces)
            if pieces and not isinstance(reply, Created):
                await run_commands(self._client, [("DEL", request_key(stream_id))])
            return reply

        created_id = stream_id or new_stream_id(digest)
        try:
            reply = await try_to_create(created_id)
        except BucketUnavailable:
            if digest or stream_id or (elsewhere := self._id_elsewhere(created_id)) is None:
                raise
            created_id = elsewhere
            reply = await try_to_create(created_id)
        if isinstance(reply, Ended) and not (digest or stream_id):  # of a try without memory, which a worker took
            created_id = new_stream_id(None)
            reply = await try_to_create(created_id)
        return self._dispatched(created_id, reply, demand, body_hash)

    def _id_elsewhere(self, stream_id: str) -> str | None:
        """Return a fresh id whose bucket is on another node of a cluster, if there is one."""
        servers = self._client.servers
        node = servers.node_of(state_key(stream_id))
        if len(servers.nodes) == 1:
            return None
        drawn = (new_stream_id(None) for _ in range(_MOST_DRAWN))
        return next((each for each in drawn if servers.node_of(state_key(each)) != node), None)

    def _dispatched(self, stream_id: str, reply: _Reply, demand: Demand, body_hash: str) -> Dispatched:
        match reply:
            case Known(known_id, known_hash, _):
                _check_same_body(known_hash, body_hash)
                return Dispatched(known_id, None)
            case Limited() as limited:
                raise _counted(refusal(demand, limited))
            case OverBudget() as over:
                warn(demand, over.warnings)
                raise _counted(budget_refusal(demand, over))
            case Full(waiting):
                raise _counted(self._backlog.refusal(waiting))
            case SourceGone():
                raise _counted(StreamGone())
            case Ended():
                raise BrokerUnavailable
            case Created(queue_position, used, warnings):
                warn(demand, warnings)
                metrics.STREAMS_CREATED.inc()
                return Dispatched(stream_id, Admission(demand, used), queue_position)

    async def _create(self, new: NewStream, pieces: Sequence[Call[WriteReply]]) -> _Reply:
        """Store the pieces of a large request, and create the stream. If there is no room for it, drop the oldest
        answers and try again: others may take the room, so a few times. Raises :class:`BrokerFull`,
        :class:`LimitReached` and :class:`InvalidRequest`."""
        unstored = list(reversed(pieces))
        error: HeadraceError = BrokerFull()
        is_final = False
        for left in reversed(range(_TRIES_FOR_ROOM)):
            is_final = is_final or not left
            try:
                while unstored:
                    await self._store(unstored[-1])
                    unstored.pop()
                reply = await create(self._client, self._scripts, new, is_final=is_final)
            except BrokerFull:
                if not await self._storage.relieve():
                    raise
                continue
            if isinstance(reply, Unstored):  # Redis has lost some, or a try took too long
                unstored = list(reversed(pieces))
            elif not isinstance(reply, Stored):
                return reply
            elif not is_final:
                try:
                    await self._storage.make_room(new.demand, reply)
                except (LimitReached, InvalidRequest) as refused:  # the last try undoes the creation
                    error, is_final = refused, True
        raise error

    async def _store(self, piece: Call[WriteReply]) -> None:
        try:
            await run_script(self._client, piece)
        except BrokerUnavailable as error:
            raise BucketUnavailable.of(error) from error

    async def find(self, principal: str, idempotency_key: str, body_hash: str) -> str | None:
        """Return the id of the stream that the key belongs to, if any. Raises :class:`IdempotencyConflict` if its
        body differs, and :class:`BrokerUnavailable`."""
        entry = await self._entry(principal, idempotency_key)
        if entry is None:
            return None
        stream_id, known_hash = entry
        _check_same_body(known_hash, body_hash)
        return stream_id

    async def stream_of(self, principal: str, idempotency_key: str) -> str | None:
        """Return the id of the stream that the key belongs to, whatever its body. Raises
        :class:`BrokerUnavailable`."""
        entry = await self._entry(principal, idempotency_key)
        return None if entry is None else entry[0]

    async def _entry(self, principal: str, idempotency_key: str) -> tuple[str, str] | None:
        """Return the stream of a key and the hash of its body."""
        key = idempotency_entry_key(idempotency_digest(principal, idempotency_key))
        (entry,) = await run_commands(self._client, [("GET", key)])
        if entry is None:
            return None
        stream_id, body_hash = entry.decode().split()
        return stream_id, body_hash

    async def may_have_lost(self, principal: str, idempotency_key: str) -> bool:
        """Return True if Redis may have lost the key's stream a moment ago, so that a worker may restore it."""
        stream_id = new_stream_id(idempotency_digest(principal, idempotency_key))  # a stranger in the key's bucket
        return isinstance(await run_script(self._client, self._scripts.read(stream_id, START)), Lost)

    def _fields(
        self,
        stream_id: str,
        chat_request: ChatRequest,
        principal: str,
        on_disconnect: OnDisconnect,
        more: Mapping[str, str],
    ) -> tuple[Fields, list[Call[WriteReply]]]:
        """Return the fields of the state, and the calls that store a large request before it."""
        grace_s = self._settings.grace_s if chat_request.grace_s is None else chat_request.grace_s
        request_log = current_request_log()
        fields: dict[str, str | bytes | int] = {
            # They join the worker's log lines and spans to those of this request.
            "request_id": request_log.request_id if request_log else "",
            "traceparent": request_log.span.traceparent if request_log else "",
            "principal": principal,
            "provider": chat_request.provider or "",
            "model": chat_request.model,
            "request": encode_request(chat_request, is_watched="hooks" in more),
            "max_tokens": chat_request.max_tokens or 0,
            "on_disconnect": chat_request.on_disconnect or on_disconnect,
            "grace_ms": round(grace_s * 1000),
            **chat_request.loss_fields,
            "metadata": msgspec.json.encode(chat_request.metadata or {}),
            **more,
        }
        return self._scripts.split_request(stream_id, fields)

    async def requeue(self, stream_id: str) -> bool:
        """Queue a stream again in case its place was lost; see :func:`shared.broker.creation.requeue`."""
        return await requeue(self._client, self._scripts, stream_id)


def _check_same_body(known_hash: str, body_hash: str) -> None:
    if known_hash != body_hash:
        raise IdempotencyConflict("Idempotency-Key: already used with another body; use a new key")


def _counted(error: HeadraceError) -> HeadraceError:
    metrics.REFUSALS.labels(error.code).inc()
    return error
