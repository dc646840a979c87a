"""Submits a chat request, independent of its dialect: attaches to an existing stream or creates and queues a new
one."""

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from pydantic import SecretStr

from gateway.archive.reads import find_archived
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.auth.principal import Principal
from gateway.intake.archiving import archive_fields
from gateway.intake.body_memory import releases_body, run_beside_loop
from gateway.intake.field_policy import (
    add_ignored,
    known_ignored,
    permitted_targets,
    supporting_targets,
    with_policy,
)
from gateway.intake.webhooks import check_webhook_url, webhook_fields
from gateway.state import GatewayState
from shared.broker.replies import LogPage
from shared.broker.retry_dedupe import find_request, forget_request, remember_request
from shared.denied_fields import denied_field
from shared.errors import (
    Draining,
    FieldNotAllowed,
    InvalidRequest,
    StreamArchived,
    StreamGone,
    StreamNotFound,
    StreamRecovering,
)
from shared.protocol.ids import START, EventId
from shared.protocol.lifecycle import Status
from shared.protocol.lineage import NO_LINEAGE
from shared.rate_limits import account_of
from shared.schemas import ChatRequest, OnDisconnect
from shared.schemas.stored_request import parts_of
from shared.settings import UnsupportedFields

MOST_KEY_CHARACTERS: Final = 255
_FAILED: Final = frozenset({Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True, slots=True)
class Submission:
    """The stream of a request. ``created``: False if the request attached to an existing stream. ``queue_position``:
    1 is next, 0 is unknown. ``log_page``: the events after the cursor. ``headers``: of the response."""

    stream_id: str
    created: bool
    queue_position: int
    log_page: LogPage
    headers: dict[str, str]


class CursorWithoutStream(Exception):
    """A request has a cursor, but no key of an existing stream. Nothing is generated: the client wanted to resume."""


@releases_body
async def submit(
    gateway: GatewayState,
    caller: Principal,
    chat_request: ChatRequest,
    key: str | None,
    *,
    on_disconnect: OnDisconnect,
    cursor: EventId = START,
    extra_fields: Mapping[str, str] | None = None,
    unsupported_fields: UnsupportedFields | None = None,
) -> Submission:
    """Create a stream, or attach to the one that ``key`` belongs to. ``on_disconnect`` and ``unsupported_fields``:
    the defaults for requests that set none. ``extra_fields``: a dialect's own fields of the stream's state. Raises
    :class:`Draining`, :class:`CursorWithoutStream`, :class:`StreamRecovering` (Redis may have lost the key a moment
    ago), :class:`FieldNotAllowed`, :class:`UnsupportedField`, and the errors of :meth:`Models.resolve`,
    :meth:`Dispatch.dispatch` and :func:`read_own`."""
    if key is not None and not 1 <= len(key) <= MOST_KEY_CHARACTERS:
        raise InvalidRequest(f"Idempotency-Key: must have 1 to {MOST_KEY_CHARACTERS} characters")
    if gateway.hub.draining:
        raise Draining
    _check_fields(gateway, caller, chat_request)
    check_webhook_url(gateway.settings, chat_request)
    body_hash = await run_beside_loop(_hash_of, chat_request, gateway.settings.secret)
    # Before the model is resolved: the stream of an earlier request does not depend on the models on offer now.
    if key is not None and (stream_id := await gateway.dispatch.find(caller.id, key, body_hash)) is not None:
        return await _attach(gateway, caller, stream_id, cursor)
    if cursor != START:
        if key is not None and await gateway.dispatch.may_have_lost(caller.id, key):
            raise StreamRecovering
        raise CursorWithoutStream
    chat_id = (extra_fields or {}).get("chat")
    resolved = await gateway.models.resolve(chat_request, caller.models, chat_id)
    resolved = permitted_targets(resolved, gateway.models.denied_at)
    families = await gateway.models.families()
    resolved = supporting_targets(with_policy(resolved, unsupported_fields, gateway.settings), families)
    dispatched = await gateway.dispatch.dispatch(
        resolved,
        body_hash=body_hash,
        principal=caller,
        idempotency_key=key,
        on_disconnect=on_disconnect,
        extra_fields=gateway.models.routing_of(chat_request, resolved, chat_id)
        | webhook_fields(gateway.settings, caller, chat_request)
        | archive_fields(gateway.settings, chat_request, extra_fields or {})
        | dict(extra_fields or {}),
    )
    if dispatched.admission is None:
        return await _attach(gateway, caller, dispatched.stream_id, cursor)
    headers = _headers_of(dispatched.stream_id) | dispatched.admission.headers
    add_ignored(headers, known_ignored(resolved, families))
    log_page = LogPage(Status.QUEUED, caller.id, epoch=0, lineage=NO_LINEAGE, length=0, first=1, events=[])
    return Submission(dispatched.stream_id, True, dispatched.queue_position, log_page, headers)


@releases_body
async def submit_without_key(
    gateway: GatewayState,
    caller: Principal,
    chat_request: ChatRequest,
    *,
    is_retry: bool,
    on_disconnect: OnDisconnect,
    extra_fields: Mapping[str, str] | None = None,
    unsupported_fields: UnsupportedFields | None = None,
) -> Submission:
    """Create a stream; a retry of the same request attaches to the stream of the first try, unless that failed."""
    _check_fields(gateway, caller, chat_request)
    account = account_of(caller.id)
    body_hash = await run_beside_loop(_hash_of, chat_request, gateway.settings.secret)
    if is_retry and (stream_id := await find_request(gateway.client, account, body_hash)) is not None:
        try:
            submission = await _attach(gateway, caller, stream_id, START)
        except (StreamNotFound, StreamGone):
            pass
        else:
            if submission.log_page.status not in _FAILED:
                return submission
    submitting = submit(
        gateway,
        caller,
        chat_request,
        None,
        on_disconnect=on_disconnect,
        extra_fields=extra_fields,
        unsupported_fields=unsupported_fields,
    )
    if is_retry:
        submission = await submitting
    else:  # both in one exchange
        _, submission = await asyncio.gather(forget_request(gateway.client, account, body_hash), submitting)
    await remember_request(gateway.client, account, body_hash, submission.stream_id)
    return submission


def _check_fields(gateway: GatewayState, caller: Principal, chat_request: ChatRequest) -> None:
    """Raise :class:`FieldNotAllowed` for a field that the server or the credentials deny."""
    for denied, source in ((gateway.settings.denied_fields, "HEADRACE_DENIED_FIELDS"), (caller.denied, "the key")):
        if (path := denied_field(chat_request, denied)) is not None:
            problem = f"{path}: not allowed here; remove it"
            raise FieldNotAllowed(problem, detail=f"{path}: denied by {source}")


async def _attach(gateway: GatewayState, caller: Principal, stream_id: str, cursor: EventId) -> Submission:
    grant = Grant.of(caller)
    try:
        log_page = await read_own(gateway, grant, stream_id, cursor)
    except (StreamGone, StreamNotFound) as error:
        await find_archived(gateway, grant, stream_id, error)
        raise StreamArchived(f"/chat/{stream_id}") from None
    if log_page.status is Status.QUEUED:  # its job may be lost
        await gateway.dispatch.requeue(stream_id)
    return Submission(stream_id, False, 0, log_page, _headers_of(stream_id))


def _headers_of(stream_id: str) -> dict[str, str]:
    return {"X-Stream-Id": stream_id, "Location": f"/chat/stream/{stream_id}"}


def _hash_of(chat_request: ChatRequest, secret: SecretStr | None) -> str:
    """Return a hash that is equal for equal requests, however their JSON was written. Guessing a request from it
    requires the secret."""
    hashed = _keyed(secret.get_secret_value() if secret else "").copy()
    for part in parts_of(chat_request):
        hashed.update(len(part).to_bytes(8))
        hashed.update(part)
    return hashed.hexdigest()


@cache
def _keyed(secret: str) -> hmac.HMAC:
    """Return the hash of nothing yet. A process has one secret."""
    return hmac.new(secret.encode(), digestmod="sha256")
