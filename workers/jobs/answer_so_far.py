"""The output of a stream's calls, as far as another call needs it to go on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shared.protocol import events
from shared.protocol.events import PartialUsage, Usage
from workers.providers.base import Delta, ReasoningDelta, TextDelta
from workers.writing.surrogates import well_formed
from workers.writing.usage_by_target import Output


@dataclass(slots=True)
class AnswerSoFar:
    """``is_text``: the output is only text and reasoning. ``input_counts``: as far as the provider of the latest call
    reported them before its output."""

    is_text: bool = True
    deltas: int = 0
    characters: int = 0
    text_deltas: int = 0
    input_counts: PartialUsage | None = None
    continuations: int = 0
    _texts: list[str] = field(default_factory=list)

    def add(self, deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            if isinstance(delta, TextDelta):
                self._texts.append(delta.text)
                self.text_deltas += 1
            if isinstance(delta, TextDelta | ReasoningDelta):
                self.deltas += 1
                self.characters += len(delta.text)
            elif not _is_about_text(delta):
                self.is_text = False

    @property
    def text(self) -> str:
        self._texts = ["".join(self._texts)]
        return well_formed(self._texts[0])

    @property
    def output(self) -> Output:
        return Output(self.deltas, self.characters)


@dataclass(frozen=True, slots=True)
class Continuation:
    """An answer whose provider broke off. ``broken_off``: usage of that call. ``lost``: paths of the request's fields
    that have no effect in a continuation, by target."""

    text: str
    token_index: int
    output: Output
    broken_off: Usage
    lost: Mapping[str, tuple[str, ...]]


def _is_about_text(delta: Delta) -> bool:
    """Return True for data about text and reasoning. Other extras are content, such as the output of a tool."""
    if not isinstance(delta, events.Extra) or "at" in delta.data or "call" in delta.data:
        return False
    block = delta.data.get("block")
    return not isinstance(block, dict) or "open" in delta.data or block.get("type") == "redacted_thinking"
