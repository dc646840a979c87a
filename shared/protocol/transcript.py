"""What a run of events adds up to: the JSON view of a stream, and the tokens to estimate usage from."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from shared.protocol.events import Done, Error, Event, Reasoning, Start, Token, Usage

_CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English


@dataclass(slots=True)
class Transcript:
    """Folded events of one epoch, in order. ``tokens`` counts the provider's deltas, reasoning included."""

    start: Start | None = None
    tokens: int = 0
    done: Done | None = None
    error: Error | None = None
    _text: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    def add(self, event: Event) -> None:
        match event:
            case Token():
                self._text.append(event.token)
                self.tokens += event.n
            case Reasoning():
                self._reasoning.append(event.text)
                self.tokens += event.n
            case Start():
                self.start = event
            case Error():
                self.error = event
            case Done():
                self.done = event


def fold(events: Iterable[Event]) -> Transcript:
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return transcript


def estimate_usage(prompt_characters: int, output_tokens: int) -> Usage:
    """For a provider that did not say, or could not any more."""
    return Usage(math.ceil(prompt_characters / _CHARACTERS_PER_TOKEN), output_tokens, estimated=True)
