"""Folds events into a transcript, for the JSON view of a stream and the estimate of its usage."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shared.protocol.events import Continued, Done, Error, Event, Json, Reasoning, Refusal, Start, Token, ToolCall


@dataclass(slots=True)
class Transcript:
    """Folded events of one epoch, in order. ``deltas`` and ``characters`` count the provider's output, reasoning and
    tool calls included; ``tool_calls`` and ``json`` hold only complete values. ``events``: all of them, in order."""

    start: Start | None = None
    deltas: int = 0
    characters: int = 0
    tool_calls: list[ToolCall] = field(default_factory=list)
    json: Any = None
    events: list[Event] = field(default_factory=list)
    done: Done | None = None
    error: Error | None = None
    _text: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _refusal: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def refusal(self) -> str:
        return "".join(self._refusal)

    @property
    def prefixes(self) -> list[int]:
        """Characters of the text that each further call went on with."""
        return [event.characters for event in self.events if isinstance(event, Continued)]

    def add(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case Token():
                self._text.append(event.token)
                self._count(event.token, event.n)
            case Reasoning():
                self._reasoning.append(event.text)
                self._count(event.text, event.n)
            case Refusal():
                self._refusal.append(event.text)
                self._count(event.text, event.n)
            case ToolCall(complete=True):
                self.tool_calls.append(event)
            case ToolCall():
                self._count(event.arguments, event.n)
            case Json(path=[]):
                self.json = event.value
            case Start():
                self.start = event
            case Error():
                self.error = event
            case Done():
                self.done = event

    def _count(self, text: str, deltas: int) -> None:
        self.deltas += deltas
        self.characters += len(text)


def fold(events: Iterable[Event]) -> Transcript:
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return transcript
