"""What earlier responses said, for a request that goes on from one or names their items."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec

from gateway.api.access import read_own
from gateway.auth.grants import Grant
from gateway.dialects.openai_responses.stream import About, ResponseEvents
from gateway.live.batch import Batch
from gateway.state import GatewayState
from shared.broker.log import read_log
from shared.broker.status import read_kept
from shared.errors import InvalidRequest, StreamGone, StreamNotFound
from shared.protocol import events
from shared.protocol.ids import EventId
from shared.protocol.lifecycle import TERMINAL
from shared.protocol.transcript import Transcript, fold

PREFIX: Final = "resp_"
_NOT_HERE: Final = "previous_response_id: there is no such response, it was not stored, or its retention has ended"


def stream_id_of(response_id: str) -> str:
    """Raises :class:`StreamNotFound`."""
    if not response_id.startswith(PREFIX):
        raise StreamNotFound
    return response_id.removeprefix(PREFIX)


async def conversation_of(gateway: GatewayState, right: Grant, response_id: str) -> list[dict[str, Any]]:
    """Messages: what it was asked, without its instructions, and what it answered. Raises :class:`InvalidRequest`."""
    sealing = gateway.scripts.sealing
    try:
        stream_id = stream_id_of(response_id)
        page = await read_own(gateway, right, stream_id, most_events=0)
    except (StreamNotFound, StreamGone):
        raise InvalidRequest(_NOT_HERE) from None
    begins = await read_kept(gateway.client, sealing, stream_id, "follow_up")
    request = await read_kept(gateway.client, sealing, stream_id, "request")
    if begins is None or request is None:
        raise InvalidRequest(_NOT_HERE)
    if page.status not in TERMINAL:
        raise InvalidRequest("previous_response_id: that response has not ended yet")
    stored = await read_log(gateway.client, gateway.scripts, stream_id)
    transcript = await asyncio.to_thread(lambda: fold(map(events.decode, stored)))
    asked: list[dict[str, Any]] = msgspec.json.decode(request)["messages"]
    return [*asked[int(begins) :], *_answer(transcript)]


async def items_of(gateway: GatewayState, right: Grant, item_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By their ids, with others of the same responses. What is not there, or is somebody else's, is left out."""
    found: dict[str, dict[str, Any]] = {}
    for stream_id in {item_id.partition("_")[2].rpartition("_")[0] for item_id in item_ids}:
        with suppress(StreamNotFound, StreamGone):
            await read_own(gateway, right, stream_id, most_events=0)
            replayed = await replay_of(gateway, About(stream_id, model="", created_at=0))
            found |= {item["id"]: item for item in replayed.response.output}
    return found


async def replay_of(gateway: GatewayState, about: About) -> ResponseEvents:
    """Whatever there is of a response by now."""
    stored = await read_log(gateway.client, gateway.scripts, about.stream_id)
    renderer = ResponseEvents(about)
    if stored:  # many, perhaps, and others wait
        await asyncio.to_thread(
            renderer.render, Batch([(b"0-0", event) for event in stored], EventId(0, len(stored)))
        )
    return renderer


def _answer(transcript: Transcript) -> list[dict[str, Any]]:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in transcript.tool_calls
    ]
    text = transcript.text or transcript.refusal
    if not text and not calls:
        return []
    return [{"role": "assistant", **({"content": text} if text else {}), **({"tool_calls": calls} if calls else {})}]
