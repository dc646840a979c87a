"""Dependencies of the routes of one run, which is named by its client's ids or by the id of its stream."""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Path, Query, Request

from gateway.api.access import authorise
from gateway.api.parameters import Ticket
from gateway.auth.grants import Grant
from gateway.auth.principal import Principal
from gateway.state import Gateway, GatewayState
from shared.errors import InvalidRequest, StreamNotFound, StreamRecovering
from shared.protocol.ids import is_stream_id
from shared.scopes import Scope

NO_RUN: Final = "runId: no such run; check it, the threadId and your credentials"
RunId = Annotated[str, Path(description="The client's `runId`, or the stream's id in `X-Stream-Id`.")]
ThreadId = Annotated[
    str | None, Query(alias="threadId", description="Of the run; not needed with the id of the stream.")
]


@dataclass(frozen=True, slots=True)
class RunGrant:
    """Access to the stream of a run."""

    stream_id: str
    grant: Grant


async def may_read_run(
    request: Request, gateway: Gateway, run_id: RunId, thread_id: ThreadId = None, ticket: Ticket = None
) -> RunGrant:
    """Authorise reading, by a ticket for the stream or else by credentials."""
    return await _grant(request, gateway, run_id, thread_id, ticket, Scope.READ)


async def may_cancel_run(
    request: Request, gateway: Gateway, run_id: RunId, thread_id: ThreadId = None, ticket: Ticket = None
) -> RunGrant:
    return await _grant(request, gateway, run_id, thread_id, ticket, Scope.CANCEL)


MayReadRun = Annotated[RunGrant, Depends(may_read_run)]
MayCancelRun = Annotated[RunGrant, Depends(may_cancel_run)]


def key_of(thread_id: str, run_id: str) -> str:
    """Return the idempotency key of a run."""
    ids = f"{thread_id}\x00{run_id}".encode()
    return f"ag-ui:{hashlib.sha256(ids).hexdigest()}"


async def stream_of(gateway: GatewayState, caller: Principal, run_id: str, thread_id: str | None) -> str:
    """Return the stream id of a caller's run. Raises :class:`StreamNotFound`, :class:`StreamRecovering` (Redis may
    have lost the run a moment ago), and :class:`InvalidRequest` without a thread."""
    if is_stream_id(run_id):
        return run_id
    if thread_id is None:
        raise InvalidRequest("threadId: missing; add it to the query, or use the id of the stream instead of runId")
    key = key_of(thread_id, run_id)
    stream_id = await gateway.dispatch.stream_of(caller.id, key)
    if stream_id is None and await gateway.dispatch.may_have_lost(caller.id, key):
        raise StreamRecovering
    if stream_id is None:
        raise StreamNotFound(NO_RUN)
    return stream_id


async def _grant(
    request: Request, gateway: GatewayState, run_id: str, thread_id: str | None, ticket: str | None, scope: Scope
) -> RunGrant:
    if is_stream_id(run_id):
        return RunGrant(run_id, await authorise(request, gateway, run_id, ticket, scope))
    caller = await gateway.authenticator.principal(request)
    caller.need(scope)
    return RunGrant(await stream_of(gateway, caller, run_id, thread_id), Grant.of(caller))
