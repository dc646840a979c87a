"""Content of earlier responses, for a request that continues one or names their items."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec

from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.dialects.openai_responses.stream import ResponseEvents, ResponseInfo
from gateway.dialects.tool_call import tool_call
from gateway.live.batch import Batch
from gateway.state import GatewayState
from shared.broker.log import read_log
from shared.broker.status import read_field
from shared.errors import InvalidRequest, StreamGone, StreamNotFound
from shared.protocol import events
from shared.protocol.ids import EventId
from shared.protocol.lifecycle import TERMINAL
from shared.protocol.transcript import Transcript, fold

PREFIX: Final = "resp_"
_NOT_HERE: Final = "previous_response_id: no such response; it was not stored, or its retention has ended"


def stream_id_of(response_id: str) -> str:
    """Return the stream id. Raises :class:`StreamNotFound`."""
    if not response_id.startswith(PREFIX):
        raise StreamNotFound
    return response_id.removeprefix(PREFIX)


async def conversation_of(gateway: GatewayState, grant: Grant, response_id: str) -> list[dict[str, Any]]:
    """Return the messages of an earlier response, without its instructions, and its answer. Raises
    :class:`InvalidRequest`."""
    sealing = gateway.scripts.sealing
    try:
        stream_id = stream_id_of(response_id)
        log_page = await read_own(gateway, grant, stream_id, most_events=0)
    except (StreamNotFound, StreamGone):
        raise InvalidRequest(_NOT_HERE) from None
    begins = await read_field(gateway.client, sealing, stream_id, "follow_up")
    request = await read_field(gateway.client, sealing, stream_id, "request")
    if begins is None or request is None:
        raise InvalidRequest(_NOT_HERE)
    if log_page.status not in TERMINAL:
        raise InvalidRequest("previous_response_id: that response is still in progress; wait for its end")
    stored = await read_log(gateway.client, gateway.scripts, stream_id)
    transcript = await asyncio.to_thread(lambda: fold(map(events.decode, stored)))
    sent: list[dict[str, Any]] = msgspec.json.decode(request)["messages"]
    return [*sent[int(begins) :], *_answer(transcript)]


async def items_of(gateway: GatewayState, grant: Grant, item_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the items by id, with the other items of their responses. Items that are missing, or belong to others,
    are left out."""
    found: dict[str, dict[str, Any]] = {}
    for stream_id in {item_id.partition("_")[2].rpartition("_")[0] for item_id in item_ids}:
        with suppress(StreamNotFound, StreamGone):
            await read_own(gateway, grant, stream_id, most_events=0)
            replayed = await replay_of(gateway, ResponseInfo(stream_id, model="", created_at=0))
            found |= {item["id"]: item for item in replayed.response.output}
    return found


async def replay_of(gateway: GatewayState, about: ResponseInfo) -> ResponseEvents:
    """Render all events of a response so far."""
    stored = await read_log(gateway.client, gateway.scripts, about.stream_id)
    renderer = ResponseEvents(about)
    if stored:  # possibly many: keep the event loop free
        await asyncio.to_thread(
            renderer.render, Batch([(b"0-0", event) for event in stored], EventId(0, len(stored)))
        )
    return renderer


def _answer(transcript: Transcript) -> list[dict[str, Any]]:
    calls = [tool_call(call.id, call.name, call.arguments) for call in transcript.tool_calls]
    text = transcript.text or transcript.refusal
    if not text and not calls:
        return []
    return [{"role": "assistant", **({"content": text} if text else {}), **({"tool_calls": calls} if calls else {})}]
