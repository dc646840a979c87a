"""What was said up to the end of an earlier response, for a request that goes on from it."""

import asyncio
from typing import Any, Final

import msgspec

from gateway.api.access import read_own
from gateway.auth.rights import Right
from gateway.state import GatewayState
from shared.broker.ending import read_all
from shared.broker.status import read_kept
from shared.errors import InvalidRequest, StreamGone, StreamNotFound
from shared.protocol import events
from shared.protocol.lifecycle import TERMINAL
from shared.protocol.transcript import Transcript, fold

PREFIX: Final = "resp_"
_NOT_HERE: Final = "previous_response_id: there is no such response, it was not stored, or its retention has ended"


def stream_id_of(response_id: str) -> str:
    """Raises :class:`StreamNotFound`."""
    if not response_id.startswith(PREFIX):
        raise StreamNotFound
    return response_id.removeprefix(PREFIX)


async def conversation_of(gateway: GatewayState, right: Right, response_id: str) -> list[dict[str, Any]]:
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
    stored = await read_all(gateway.client, gateway.scripts, stream_id)
    transcript = await asyncio.to_thread(lambda: fold(map(events.decode, stored)))
    asked: list[dict[str, Any]] = msgspec.json.decode(request)["messages"]
    return [*asked[int(begins) :], *_answer(transcript)]


def _answer(transcript: Transcript) -> list[dict[str, Any]]:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in transcript.tool_calls
    ]
    text = transcript.text or transcript.refusal
    if not text and not calls:
        return []
    return [{"role": "assistant", **({"content": text} if text else {}), **({"tool_calls": calls} if calls else {})}]
