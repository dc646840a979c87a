"""Submits a chat request, independent of its dialect: attaches to an existing stream or creates and queues a new
one."""

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from pydantic import SecretStr

from gateway.archive.reads import find_archived
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.auth.principal import Principal
from gateway.chats.joining import ChatMoved, joined_history, joining_chat
from gateway.intake.archiving import archive_fields
from gateway.intake.body_memory import releases_body, run_beside_loop
from gateway.intake.changed_fields import changed_fields
from gateway.intake.field_policy import (
    add_ignored,
    known_ignored,
    permitted_targets,
    supporting_targets,
    with_policy,
)
from gateway.intake.priority import priority_fields
from gateway.intake.webhooks import check_webhook_url, webhook_fields
from gateway.state import GatewayState
from shared.broker.chat_keys import chat_digest
from shared.broker.replies import LogPage
from shared.broker.retry_dedupe import find_request, forget_request, remember_request
from shared.denied_fields import denied_field
from shared.errors import (
    ChatBusy,
    Draining,
    FieldNotAllowed,
    InvalidRequest,
    StreamArchived,
    StreamGone,
    StreamNotFound,
    StreamRecovering,
)
from shared.protocol.ids import START, EventId, idempotency_digest, new_stream_id
from shared.protocol.lifecycle import Status
from shared.protocol.lineage import NO_LINEAGE
from shared.rate_limits import account_of
from shared.schemas import ChatRequest, OnDisconnect
from shared.schemas.chat import Priority
from shared.schemas.stored_request import parts_of
from shared.settings import UnsupportedFields

MOST_KEY_CHARACTERS: Final = 255
#: Tries to join a chat while other requests do, and the pause between them.
_MOST_TRIES: Final = 40
_TRY_AGAIN_S: Final = 0.05
_FAILED: Final = frozenset({Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True, slots=True)
class Submission:
    """The stream of a request. ``created``: False if the request attached to an existing stream. ``queue_position``:
    1 is next, 0 is unknown. ``log_page``: the events after the cursor. ``headers``: of the response. ``history``:
    ``added`` or ``given``, for the earlier turns of the chat; None if there are none."""

    stream_id: str
    created: bool
    queue_position: int
    log_page: LogPage
    headers: dict[str, str]
    history: str | None = None


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
    priority: Priority | None = None,
) -> Submission:
    """Create a stream, or attach to the one that ``key`` belongs to. ``on_disconnect``, ``unsupported_fields``
    and ``priority``: the defaults for requests that set none. ``extra_fields``: a dialect's own fields of the
    stream's state. Raises :class:`Draining`, :class:`CursorWithoutStream`, :class:`StreamRecovering` (Redis may have
    lost the key a moment ago), :class:`FieldNotAllowed`, :class:`UnsupportedField`, and the errors of
    :func:`joining_chat`, :meth:`Models.resolve`, :meth:`Dispatch.dispatch`, :meth:`RequestHooks.check` and
    :func:`read_own`."""
    if key is not None and not 1 <= len(key) <= MOST_KEY_CHARACTERS:
        raise InvalidRequest(f"Idempotency-Key: must have 1 to {MOST_KEY_CHARACTERS} characters")
    if gateway.hub.draining:
        raise Draining
    _check_fields(gateway, caller, chat_request)
    check_webhook_url(gateway.settings, chat_request)
    class_fields = priority_fields(caller, chat_request, priority)
    body_hash = await run_beside_loop(_hash_of, chat_request, gateway.settings.secret)
    request = _Request(
        gateway,
        caller,
        chat_request,
        body_hash,
        key,
        on_disconnect,
        {**(extra_fields or {}), **class_fields},
        unsupported_fields,
    )
    checked: _Request | None = None
    for _ in range(_MOST_TRIES):
        # Before the model is resolved: the stream of an earlier request does not depend on the models on offer now.
        if (known := await _known(request, cursor)) is not None:
            return known
        if cursor != START:
            if key is not None and await gateway.dispatch.may_have_lost(caller.id, key):
                raise StreamRecovering
            raise CursorWithoutStream
        try:
            checked = checked or await _checked(request)
            return await _create(checked)
        except ChatMoved:
            await asyncio.sleep(_TRY_AGAIN_S)
        except ChatBusy:
            if (known := await _known(request, cursor)) is not None:  # its own stream, made by a repeat meanwhile
                return known
            raise
    raise ChatBusy


@dataclass(frozen=True, slots=True)
class _Request:
    """A request that was checked, and how to create its stream."""

    gateway: GatewayState
    caller: Principal
    chat_request: ChatRequest
    body_hash: str
    key: str | None
    on_disconnect: OnDisconnect
    extra_fields: Mapping[str, str]
    unsupported_fields: UnsupportedFields | None
    lost: tuple[str, ...] = ()


async def _checked(request: _Request) -> _Request:
    """Return the request as the hooks let it pass. Its hash stays that of the client's request."""
    gateway, chat_request = request.gateway, request.chat_request
    policy = with_policy(chat_request, request.unsupported_fields, gateway.settings).unsupported_fields
    checked = await gateway.request_hooks.check(chat_request, request.caller, refuses_loss=policy == "refuse")
    fields = {**request.extra_fields, **gateway.request_hooks.fields}
    if checked.is_changed:
        fields = changed_fields(fields, checked.request)
    return replace(request, chat_request=checked.request, extra_fields=fields, lost=checked.lost)


async def _known(request: _Request, cursor: EventId) -> Submission | None:
    """Attach to the stream of an earlier request with the same key, if there is one."""
    gateway, caller, key = request.gateway, request.caller, request.key
    if key is None:
        return None
    stream_id = await gateway.dispatch.find(caller.id, key, request.body_hash)
    if stream_id is None:
        return None
    return await _attach(gateway, caller, stream_id, cursor, request.chat_request.chat_id)


async def _create(request: _Request) -> Submission:
    """Create the stream of a request, as the next one of its chat if it has one. Raises also :class:`ChatMoved`."""
    gateway, caller = request.gateway, request.caller
    stream_id = new_stream_id(idempotency_digest(caller.id, request.key) if request.key else None)
    async with joining_chat(gateway, caller, request.chat_request, stream_id) as member:
        routed_by = _routing_chat(caller, request.chat_request.chat_id or request.extra_fields.get("chat"))
        resolved = await gateway.models.resolve(member.request, caller.models, routed_by)
        resolved = permitted_targets(resolved, gateway.models.denied_at)
        families = await gateway.models.families()
        policy = with_policy(resolved, request.unsupported_fields, gateway.settings)
        resolved = supporting_targets(policy, families)
        dispatched = await gateway.dispatch.dispatch(
            resolved,
            body_hash=request.body_hash,
            principal=caller,
            idempotency_key=request.key,
            on_disconnect=request.on_disconnect,
            extra_fields=gateway.models.routing_of(member.request, resolved, routed_by)
            | webhook_fields(gateway.settings, caller, request.chat_request)
            | archive_fields(gateway.settings, request.chat_request, request.extra_fields)
            | dict(request.extra_fields)
            | member.fields,
            stream_id=member.stream_id,
        )
        # An id that is known may be this one, after a try that had no reply.
        member.is_created = dispatched.admission is not None or dispatched.stream_id == member.stream_id
    if dispatched.admission is None:
        return await _attach(gateway, caller, dispatched.stream_id, START, request.chat_request.chat_id)
    headers = _headers_of(dispatched.stream_id, member.history) | dispatched.admission.headers
    add_ignored(headers, (*request.lost, *known_ignored(resolved, families)))
    log_page = LogPage(Status.QUEUED, caller.id, epoch=0, lineage=NO_LINEAGE, length=0, first=1, events=[])
    return Submission(dispatched.stream_id, True, dispatched.queue_position, log_page, headers, member.history)


def _routing_chat(caller: Principal, chat_id: str | None) -> str | None:
    """Return what the targets of a chat's requests are chosen by."""
    return None if chat_id is None else f"{account_of(caller.id)}:{chat_digest(chat_id)}"


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
    priority: Priority | None = None,
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
        priority=priority,
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


async def _attach(
    gateway: GatewayState, caller: Principal, stream_id: str, cursor: EventId, chat_id: str | None = None
) -> Submission:
    grant = Grant.of(caller)
    try:
        log_page = await read_own(gateway, grant, stream_id, cursor)
    except (StreamGone, StreamNotFound) as error:
        await find_archived(gateway, grant, stream_id, error)
        raise StreamArchived(f"/chat/{stream_id}") from None
    if log_page.status is Status.QUEUED:  # its job may be lost
        await gateway.dispatch.requeue(stream_id)
    history = None if chat_id is None else await joined_history(gateway, caller, chat_id, stream_id)
    return Submission(stream_id, False, 0, log_page, _headers_of(stream_id, history), history)


def _headers_of(stream_id: str, history: str | None = None) -> dict[str, str]:
    headers = {"X-Stream-Id": stream_id, "Location": f"/chat/stream/{stream_id}"}
    return headers if history is None else {**headers, "X-Headrace-History": history}


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
