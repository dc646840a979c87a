"""Creates responses and finds existing ones, for HTTP and for WebSockets alike."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from fastapi import Request

from gateway.api.deferred import submit_once
from gateway.api.previous_responses import PREFIX, ComposedRequest, compose_request
from gateway.archive.archived_log import ArchivedLog
from gateway.archive.reads import find_archived, read_stored_fields
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.auth.principal import Principal
from gateway.dialects.openai_responses import echo
from gateway.dialects.openai_responses.response import ResponseInfo, Stored, decode_stored, encode_stored
from gateway.intake.submit import Submission
from gateway.live.subscription import StreamSource
from gateway.state import GatewayState
from shared.archive.records import ArchivedStream
from shared.broker.replies import LogPage
from shared.broker.status import read_field, read_state
from shared.errors import StreamGone, StreamNotFound
from shared.protocol.ids import START


@dataclass(frozen=True, slots=True)
class CreatedResponse:
    """A response that was accepted, or attached to. ``headers``: of the answer to the request. ``earlier``: items of
    stored responses before the input."""

    submission: Submission
    about: ResponseInfo
    headers: dict[str, str]
    is_streamed: bool
    is_background: bool
    earlier: list[Any]


@dataclass(frozen=True, slots=True)
class FoundResponse:
    """An existing response, ready to be streamed. ``source``: of its events."""

    about: ResponseInfo
    log_page: LogPage
    source: StreamSource


async def create_response(
    request: Request,
    gateway: GatewayState,
    caller: Principal,
    body: bytes,
    idempotency_key: str | None,
    *,
    previous: str | None = None,
) -> CreatedResponse:
    """Create a response, or attach to the one of an earlier request. ``previous``: id of a response whose content is
    in the body already. The caller must have the scope ``chat``."""
    composed, body_bytes = await compose_request(gateway, caller, body), len(body)
    del body
    options = composed.options
    extra_fields, large = _fields_of(composed, body_bytes, previous or composed.previous)
    chat_request, on_disconnect = composed.chat_request, "continue" if options.background else "cancel"
    chat_request = chat_request.model_copy(update={"on_disconnect": chat_request.on_disconnect or on_disconnect})
    earlier = composed.earlier.input
    del composed
    submission = await submit_once(request, gateway, caller, chat_request, idempotency_key, extra_fields)
    headers = submission.headers | {"X-Request-Id": submission.stream_id}
    about = await about_response(gateway, submission.stream_id, large=large)
    return CreatedResponse(submission, about, headers, options.stream, options.background, earlier)


def _fields_of(composed: ComposedRequest, body_bytes: int, previous: str | None) -> tuple[dict[str, str], echo.Large]:
    """Return the dialect's own fields of the stream's state, and the large attributes that the response repeats."""
    options, continues = composed.options, bool(composed.earlier.stream_ids)
    large: echo.Large = options.large
    stored = Stored(options.background, previous, options.encrypts_reasoning, options.echoed, options.forms)
    if not echo.is_read_from_request(body_bytes, is_kept=options.store, continues=continues):
        large = echo.storable(options.large)
        stored = msgspec.structs.replace(stored, large=large)
    fields = {"response": encode_stored(stored)}
    if continues:
        fields["sources"] = " ".join(composed.earlier.stream_ids)
    if options.store:
        fields["follow_up"] = str(options.instructions)
    return fields, large


async def find_response(gateway: GatewayState, grant: Grant, stream_id: str) -> FoundResponse:
    """Find a response of the caller, here or in the archive. Raises as :func:`read_own` and :func:`find_archived`
    do."""
    try:
        log_page = await read_own(gateway, grant, stream_id, START)
        return FoundResponse(await about_response(gateway, stream_id), log_page, gateway.hub)
    except (StreamGone, StreamNotFound) as error:
        archived = await find_archived(gateway, grant, stream_id, error)
    log = ArchivedLog.of(archived, gateway.hub, status_url=f"/v1/responses/{PREFIX}{stream_id}")
    return FoundResponse(await about_archived(gateway, archived), log.page(START), log)


async def about_response(gateway: GatewayState, stream_id: str, *, large: echo.Large = None) -> ResponseInfo:
    """Return the attributes of a response. ``large``: those of its request, if they are at hand."""
    state = await read_state(gateway.client, gateway.scripts.sealing, stream_id)
    if state is None or state.created_at is None:
        raise StreamGone
    created_at = int(datetime.fromisoformat(state.created_at).timestamp())
    stored = decode_stored(await read_field(gateway.client, gateway.scripts.sealing, stream_id, "response"))
    large = large if large is not None else stored.large
    if large is None and stored.echoed.get("store"):
        large = echo.large_in(await read_field(gateway.client, gateway.scripts.sealing, stream_id, "request"))
    model = f"{state.provider}/{state.model}"
    return ResponseInfo(stream_id, model, created_at, stored, state.metadata, large)


async def about_archived(gateway: GatewayState, archived: ArchivedStream) -> ResponseInfo:
    stored, large, stream_id = decode_stored(archived.fields.get("response")), None, archived.stream_id
    if stored.large is None and stored.echoed.get("store"):
        state = await read_stored_fields(gateway, stream_id, ("status", "request"))
        large = echo.large_in(state["request"])
    model, metadata = f"{archived.provider}/{archived.model}", archived.view["metadata"]
    return ResponseInfo(stream_id, model, archived.created // 1000, stored, metadata, stored.large or large)
