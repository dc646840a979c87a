"""An earlier stream as a turn of a conversation: the request that it was made from, and its answer as messages."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.archive.reads import read_stored_fields
from gateway.dialects.reasoning import ReasoningCollector, extra_of, pack
from gateway.dialects.tool_call import tool_call
from gateway.intake.body_memory import run_beside_loop, take_memory
from gateway.state import GatewayState
from shared.broker.log import read_log
from shared.broker.stored_request import read_request
from shared.protocol import events
from shared.protocol.lifecycle import TERMINAL
from shared.protocol.transcript import Transcript, fold
from shared.schemas.stored_request import stored_conversation

Message = dict[str, Any]
#: Bytes of a log per byte of a conversation: events of a few characters have several times as many bytes.
LOG_BYTES_PER_BYTE: Final = 4
#: Bytes of all logs that one request reads, several times the longest answer.
MOST_LOG_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class EarlierTurn:
    """A stream that has ended. ``inherited``: the messages of its request that a follow-up request inherits.
    ``answer``: its answer as messages; empty without output. ``body``: of the original; empty if there is none.
    ``events``: the whole log. ``status``: how it ended. ``earlier``: number of ``inherited`` that are of earlier
    turns."""

    inherited: list[Message]
    answer: list[Message]
    body: dict[str, Any]
    events: list[bytes]
    status: str
    earlier: int


class StillRunning(Exception):
    """The stream waits or runs."""


class NotKept(Exception):
    """The request of the stream is not stored, or not any more."""


async def read_turn(gateway: GatewayState, stream_id: str, stored: list[bytes]) -> EarlierTurn:
    """Read an earlier stream. ``stored``: its log, as far as it was read. Raises :class:`StillRunning`,
    :class:`NotKept`, :class:`Overloaded`, :class:`BrokerUnavailable`, :class:`ArchiveUnavailable` and
    :class:`ContentUnreadable`."""
    names = ("status", "follow_up", "request", "request_bytes", "earlier")
    state = await read_stored_fields(gateway, stream_id, names)
    request = await request_of(gateway, stream_id, state)
    if state["follow_up"] is None or request is None:
        raise NotKept
    if state["status"] not in TERMINAL:
        raise StillRunning
    if not stored or not events.is_done(stored[-1]):  # it ended between the two reads
        stored = await read_log(gateway.client, gateway.scripts, stream_id)
    transcript = await asyncio.to_thread(lambda: fold(map(events.decode, stored)))
    sent, body = await run_beside_loop(stored_conversation, request)
    return EarlierTurn(
        inherited=sent[int(state["follow_up"]) :],
        answer=answer_messages(transcript),
        body=body,
        events=stored,
        status=str(state["status"]),
        earlier=int(state["earlier"] or 0),
    )


async def request_of(gateway: GatewayState, stream_id: str, state: Mapping[str, str | None]) -> bytes | None:
    """Return the stored request of a state with ``request`` and ``request_bytes``; None if there is none. Raises
    :class:`Overloaded`."""
    size, request = state["request_bytes"], state["request"]
    if size is None:
        return None if request is None else request.encode()
    await take_memory(int(size))
    return await read_request(gateway.client, gateway.scripts.sealing, stream_id, int(size))


def answer_messages(transcript: Transcript) -> list[Message]:
    """Return the messages of an answer. Reasoning between two parts of it begins a message of its own, since the
    provider wants it back at its place."""
    collector, parts = ReasoningCollector(), [_Part()]
    for event in transcript.events:
        packed = collector.take(event)
        if packed is not None:
            if parts[-1].has_content:
                parts.append(_Part())
            parts[-1].reasoning.append(pack(*packed))
        parts[-1].take(event)
    if len(parts) > 1 and not parts[-1].has_content:
        parts[-2].reasoning += parts.pop().reasoning
    return [part.message for part in parts if part.has_content]


class _Part:
    """Text and calls of an answer up to the next reasoning. ``reasoning``: packed, before them."""

    def __init__(self) -> None:
        self.reasoning: list[str] = []
        self._texts: list[str] = []
        self._calls: list[Message] = []

    @property
    def has_content(self) -> bool:
        return bool(self._texts or self._calls)

    @property
    def message(self) -> Message:
        message: Message = {"role": "assistant"}
        if self._texts:
            message["content"] = "".join(self._texts)
        if self._calls:
            message["tool_calls"] = self._calls
        extra = extra_of(self.reasoning)
        return message if extra is None else {**message, "extra": extra}

    def take(self, event: events.Event) -> None:
        match event:
            case events.Token():
                self._texts.append(event.token)
            case events.Refusal():
                self._texts.append(event.text)
            case events.ToolCall(complete=True):
                self._calls.append(tool_call(event.id, event.name, event.arguments))
