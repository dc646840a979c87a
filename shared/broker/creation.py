"""Creation of a stream in two steps: its state in its bucket, and then its place at the desk (docs/adr/0020).

A stream whose second step is missing waits in its bucket's index until the sweep makes it (:func:`readmit`).
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from shared.broker.client import Client, run_commands, run_script, run_scripts
from shared.broker.declarations import Call
from shared.broker.desk_replies import Admitted, Created, Limited, OverBudget, Requeued, Stored
from shared.broker.desk_requests import MAKES_ROOM, UNTIL_SETTLED, Kind, Place, Settlement
from shared.broker.desk_scripts import is_refusal
from shared.broker.keys import of_key, principal_streams_key, state_key
from shared.broker.pipeline_connection import Command
from shared.broker.replies import Known, Unstored
from shared.broker.routes import ONE_SERVER
from shared.broker.scripts import Fields, StreamScripts
from shared.broker.settlement import settle, settle_account
from shared.broker.size import CONTENT, STREAM_BYTES, size_of
from shared.budgets import parse_reservations
from shared.errors import BrokerFull, BrokerUnavailable, BrokerUnfit
from shared.protocol.lifecycle import ACTIVE, Status
from shared.rate_limits import Demand, Limits

#: Streams of a principal that are listed.
_MOST_LISTED: Final = 10_000


@dataclass(frozen=True, slots=True)
class NewStream:
    """A stream to create. ``fields``: of its state, as :meth:`StreamScripts.split_request` returns them, with
    ``principal`` and ``on_disconnect``. ``idempotency``: digest of its key. ``is_queue_slow``: refuse it as at the
    queue depth."""

    stream_id: str
    fields: Fields
    body_hash: str
    idempotency: str | None
    demand: Demand
    is_queue_slow: bool = False

    @property
    def principal(self) -> str:
        return str(self.fields["principal"])

    @property
    def may_be_known(self) -> bool:
        """True if the reply to the first step decides about the second."""
        return self.idempotency is not None or "request_bytes" in self.fields


class BucketUnavailable(BrokerUnavailable):
    """The server of a stream's bucket is away. In a cluster, those of other buckets may not be."""

    @classmethod
    def of(cls, error: BrokerUnavailable) -> BrokerUnavailable:
        """Return the error that an error of the bucket's server means for the creation."""
        is_other = isinstance(error, BrokerFull | BrokerUnfit)
        return error if is_other else cls(detail=error.detail, reason=error.reason)


async def create(
    client: Client, scripts: StreamScripts, new: NewStream, *, is_final: bool = True
) -> Known | Unstored | Admitted:
    """Create and queue a stream. A stream that is refused leaves nothing. ``is_final``: False if the caller makes
    room for the stream's bytes and then repeats the call. Raises :class:`BrokerUnavailable`, and
    :class:`BucketUnavailable` if another id may help."""
    sealed = scripts.sealing.seal_fields(new.stream_id, new.fields)
    begin = scripts.begin(new.stream_id, sealed, new.body_hash, new.idempotency, new.demand)
    place = _place_of(new, sealed)
    final = {"stored_bytes"} if is_final else set()
    admit = partial(scripts.desk.admit, final=final, is_queue_slow=new.is_queue_slow)
    if not new.may_be_known and scripts.routes is ONE_SERVER:
        admitted = await _begin_and_admit(client, scripts, new, [begin, admit(place)])
        return await _decide(client, scripts, new, place, admitted, is_final=is_final)
    try:
        begun = await run_script(client, begin)
    except BrokerUnavailable as error:
        raise BucketUnavailable.of(error) from error
    if isinstance(begun, Unstored):
        return begun
    if isinstance(begun, Known):
        if begun.body_hash != new.body_hash or begun.status != Status.QUEUED:
            return begun
        place = replace(place, stream_id=begun.stream_id)
    admitted, _ = await asyncio.gather(
        run_script(client, admit(place)),
        run_commands(client, _listing(scripts, place.stream_id, new.principal)),
    )
    verdict = await _decide(client, scripts, new, place, admitted, is_final=is_final)
    return begun if isinstance(begun, Known) and isinstance(verdict, Created) else verdict


async def _begin_and_admit(
    client: Client, scripts: StreamScripts, new: NewStream, steps: Sequence[Call[Any]]
) -> Admitted:
    """Make both steps and list the stream in one exchange. On a cluster they must follow each other: a worker could
    take a stream from the desk whose state is still on its way to another node, and would settle it as gone."""
    (begun, admitted), listed = await asyncio.gather(run_scripts(client, steps), _list(client, scripts, new))
    if isinstance(begun, BrokerUnavailable):
        begun = BucketUnavailable.of(begun)
    for failed in (begun, listed):  # the sweep removes a state that is left
        if isinstance(failed, BrokerUnavailable) and isinstance(admitted, Created):
            await settle(client, scripts, Settlement(new.stream_id, new.demand.account, Kind.REFUSED))
    for reply in (begun, admitted, listed):
        if isinstance(reply, BrokerUnavailable):
            raise reply
    verdict: Admitted = admitted
    return verdict


async def _decide(
    client: Client, scripts: StreamScripts, new: NewStream, place: Place, admitted: Admitted, *, is_final: bool
) -> Admitted:
    """Return the verdict about a stream. If it is final and refuses the stream, undo the first step."""
    if isinstance(admitted, OverBudget) or (isinstance(admitted, Limited) and admitted.limit in UNTIL_SETTLED):
        await settle_account(client, scripts, new.demand.account)
        final = MAKES_ROOM if is_final else MAKES_ROOM - {"stored_bytes"}
        admitted = await run_script(client, scripts.desk.admit(place, final=final, is_queue_slow=new.is_queue_slow))
    if is_refusal(admitted) and (is_final or not isinstance(admitted, Stored)):
        await withdraw(client, scripts, place.stream_id, new.principal, new.idempotency)
    return admitted


async def withdraw(
    client: Client, scripts: StreamScripts, stream_id: str, principal: str, idempotency: str | None
) -> None:
    """Remove a stream that was refused. Another request with its key may still ask for the same verdict."""
    if not await run_script(client, scripts.forget(stream_id, principal, idempotency)):
        return  # it runs
    commands: list[Command] = [("ZREM", principal_streams_key(principal), stream_id)]
    if idempotency is None:
        commands.append(("DEL", of_key(stream_id)))
    await run_commands(client, commands)


async def requeue(client: Client, scripts: StreamScripts, stream_id: str) -> bool:
    """Queue a stream again that lost its place, or never got one. Return False if it is queued, refused or gone.
    Repeating is safe: an id of a stream that is held ends without effect. Raises :class:`BrokerUnavailable`."""
    reply = await run_script(client, scripts.desk.requeue(stream_id))
    if reply in {Requeued.QUEUED, Requeued.KNOWN}:
        return reply is Requeued.QUEUED
    fields = await _read(client, stream_id)
    if fields is None:
        return False
    if reply is Requeued.REFUSED:
        await withdraw(client, scripts, stream_id, fields["principal"], fields["idempotency"] or None)
        return False
    reservations = parse_reservations(fields["budgets"])
    demand = Demand(fields["account"], Limits(), int(fields["expected_tokens"] or 0), reservations)
    is_batch = fields["priority"] == "batch"
    place = Place(stream_id, demand, int(fields["size"]), _targets(fields), fields["sources"], is_batch)
    readmitted = await run_script(client, scripts.desk.readmit(place, is_limited=bool(fields["limited"])))
    return isinstance(readmitted, Created)  # else it was settled meanwhile


_READ: Final = (
    *("status", "principal", "account", "idempotency", "expected_tokens", "limited", "lanes", "provider", "sources"),
    *("request_bytes", "budgets", "priority"),
)


async def _read(client: Client, stream_id: str) -> dict[str, str] | None:
    """Return what the desk needs of the state of a stream, and its ``size``; None if it does not wait or run."""
    key = state_key(stream_id)
    sizes: list[Command] = [("HSTRLEN", key, name) for name in sorted(CONTENT)]
    values, *bytes_of_content = await run_commands(client, [("HMGET", key, *_READ), *sizes])
    fields = {name: (value or b"").decode() for name, value in zip(_READ, values, strict=True)}
    if fields["status"] not in ACTIVE:
        return None
    size = STREAM_BYTES + int(fields["request_bytes"] or 0) + sum(bytes_of_content)
    return {**fields, "size": str(size)}


async def _list(client: Client, scripts: StreamScripts, new: NewStream) -> BrokerUnavailable | None:
    """Add a stream to the list of its principal. Return the error, if it fails."""
    try:
        await run_commands(client, _listing(scripts, new.stream_id, new.principal))
    except BrokerUnavailable as error:
        return error
    return None


def _listing(scripts: StreamScripts, stream_id: str, principal: str) -> list[Command]:
    """Return the commands that add a stream to the list of its principal, which has the newest ones."""
    key = principal_streams_key(principal)
    return [
        ("ZADD", key, "NX", time.time_ns() // 1_000_000, stream_id),
        ("ZREMRANGEBYRANK", key, 0, -_MOST_LISTED - 1),
        ("PEXPIRE", key, scripts.listed_ms),
    ]


def _place_of(new: NewStream, sealed: Fields) -> Place:
    texts = {name: str(new.fields.get(name, "")) for name in ("lanes", "provider", "sources")}
    is_batch = new.fields.get("priority") == "batch"
    return Place(new.stream_id, new.demand, size_of(sealed), _targets(texts), texts["sources"], is_batch)


def _targets(fields: dict[str, str]) -> str:
    return fields["lanes"] or fields["provider"]
