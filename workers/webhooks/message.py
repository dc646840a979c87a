"""The message of a webhook: its id, its event and its body.

Streams of the Responses API have OpenAI's events, so that the SDKs of OpenAI verify and parse them; all others have
events of Headrace. docs/integration.md describes both.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from shared.broker.answer import answer_view
from shared.broker.client import Client
from shared.broker.log import read_stored_log
from shared.broker.scripts import StreamScripts
from shared.broker.status import StreamState, read_fields, read_state
from shared.protocol import events
from shared.protocol.lifecycle import TERMINAL
from shared.protocol.transcript import Transcript, fold

#: Reasons for which OpenAI calls a response incomplete.
_INCOMPLETE: Final = frozenset({"length", "content_filter"})
#: Members of the answer that a thin message has too.
_THIN: Final = (
    *(
        "stream_id",
        "chat_id",
        "status",
        "finish_reason",
        "reason",
        "usage",
        "usage_by_target",
        "cost",
        "usage_final",
        "cost_final",
        "model",
        "provider",
        "attempt",
    ),
    *("metadata", "created_at", "started_at", "ended_at"),
)


@dataclass(frozen=True, slots=True)
class Message:
    """``id``: the same for each try, so that a receiver can tell repeated ones. ``event``: the name."""

    id: str
    event: str
    body: bytes


async def message_of(
    client: Client, scripts: StreamScripts, stream_id: str, payload: Literal["thin", "full"]
) -> Message | None:
    """Return the message about a stream that has ended; None if it is gone. Raises :class:`BrokerUnavailable` and
    :class:`ContentUnreadable`."""
    state = await read_state(client, scripts.sealing, stream_id)
    if state is None or state.status not in TERMINAL:
        return None
    fields = await read_fields(client, scripts.sealing, stream_id, ("response",))
    log = await read_stored_log(client, scripts, stream_id)
    if not log.events:
        return None
    transcript = await asyncio.to_thread(lambda: fold(map(events.decode, log.events)))
    ended = datetime.fromisoformat(state.ended_at or "")
    message_id = f"evt_{stream_id}{int(ended.timestamp() * 1000):x}"
    if fields["response"] is not None:
        event = f"response.{_response_status(state, transcript)}"
        body: dict[str, Any] = {
            "id": message_id,
            "object": "event",
            "type": event,
            "created_at": int(ended.timestamp()),
            "data": {"id": f"resp_{stream_id}"},
        }
    else:
        event = f"stream.{state.status}"
        body = {"type": event, "timestamp": state.ended_at, "data": _data(stream_id, state, transcript, payload)}
    return Message(message_id, event, await asyncio.to_thread(msgspec.json.encode, body))


def _data(stream_id: str, state: StreamState, transcript: Transcript, payload: str) -> dict[str, Any]:
    view = answer_view(stream_id, state, transcript)
    if payload == "full":
        return view
    error = transcript.error
    return {name: view[name] for name in _THIN} | {
        "error": {"code": error.code, "retryable": error.retryable} if error else None
    }


def _response_status(state: StreamState, transcript: Transcript) -> str:
    """Return the status that the Responses API shows. A refusal with text is complete."""
    is_refusal = state.finish_reason == "content_filter" and bool(transcript.refusal)
    return "incomplete" if state.finish_reason in _INCOMPLETE and not is_refusal else state.status
