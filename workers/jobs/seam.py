"""The place where the output of another call joins an answer.

The call gets the answer's text without the white space at its end: Anthropic refuses that, and chat templates cut it
off. A continuation therefore begins with white space that the reader may have already, and that part is left out.
Nothing else of a continuation is ever left out, but for a server that is known to repeat the given text.

A model may begin the answer anew instead of going on with it. The output of a call is held back until that is
decided: a continuation that begins with the first 40 characters of the answer is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.errors import ProviderError
from shared.protocol import events
from shared.protocol.events import PartialUsage
from shared.schemas import ChatRequest
from workers.providers.base import Delta, ReasoningDelta, TextDelta
from workers.providers.errors import provider_failure

STARTED_OVER: Final = "provider_started_over"
#: Characters that decide.
_OPENING: Final = 40
_BEFORE_TEXT: Final = (TextDelta, ReasoningDelta, events.Extra)


@dataclass(slots=True)
class Seam:
    """The join of one call. ``text``: the answer so far. ``repeats``: the server sends the given text once more.
    ``is_open``: the output is a continuation. ``ignored``: paths of the request's fields without effect.
    ``input_counts``: as far as the provider reported them before its output. ``held_bytes``: approximate size of what
    is held back."""

    request: ChatRequest
    text: str
    repeats: bool = False
    is_open: bool = False
    ignored: Sequence[str] = ()
    input_counts: PartialUsage | None = None
    held_bytes: int = 0
    _held: list[Delta] = field(default_factory=list)
    _begins: str = ""  # the held text
    _given: str = field(init=False)
    _opening: str = field(init=False)

    def __post_init__(self) -> None:
        self._given = self.text.rstrip()
        self._opening = self._given.lstrip()[:_OPENING]

    @property
    def held_characters(self) -> int:
        """Length of the text that the call has sent, and that is not part of the answer."""
        return 0 if self.is_open else len(self._begins)

    def take(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        """Return the deltas that join the answer; nothing while they are held back. Raises :class:`ProviderError` if
        the call begins the answer anew."""
        if self.is_open:
            return deltas
        self._held += deltas
        self._begins += "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
        self.held_bytes += sum(map(_size, deltas))
        # Other output than text, such as a tool call, is no beginning of the answer.
        is_other = any(not isinstance(delta, _BEFORE_TEXT) for delta in deltas)
        return self._release(is_last=is_other)

    def end(self) -> list[Delta]:
        """Return the deltas that are still held back when the call ends. Raises like :meth:`take`."""
        return [] if self.is_open else self._release(is_last=True)

    def _release(self, *, is_last: bool) -> list[Delta]:
        left_out = self._left_out(is_last=is_last)
        if left_out is None:
            return []
        self.is_open, self.held_bytes = True, 0
        held, self._held = self._held, []
        return _without(left_out, held)

    def _left_out(self, *, is_last: bool) -> int | None:
        """Return the number of characters to leave out at the beginning; None: it is not decided yet."""
        repeated = 0
        if self.repeats:
            if not self._begins.startswith(self._given):
                if is_last or not self._given.startswith(self._begins):
                    raise self._started_over()
                return None
            repeated = len(self._given)
        begins = self._begins[repeated:]
        text = begins.lstrip()
        if not is_last and len(text) < len(self._opening) and self._opening.startswith(text):
            return None
        if text.startswith(self._opening):
            raise self._started_over()
        return repeated + _common_length(self.text[len(self._given) :], begins[: len(begins) - len(text)])

    def _started_over(self) -> ProviderError:
        provider, model = self.request.provider or "", self.request.model
        detail = f"{provider} began the answer of {model!r} anew instead of going on with it; remove the model from"
        detail += f" continues_models of [providers.{provider}]"
        return provider_failure(STARTED_OVER, provider, model=model, detail=detail)


def _size(delta: Delta) -> int:
    return len(delta.text) if isinstance(delta, TextDelta | ReasoningDelta) else len(str(delta))


def _without(count: int, deltas: list[Delta]) -> list[Delta]:
    """Return the deltas without the first ``count`` characters of their text."""
    kept = list[Delta]()
    for delta in deltas:
        if count and isinstance(delta, TextDelta):
            cut = min(count, len(delta.text))
            count -= cut
            if cut < len(delta.text):
                kept.append(TextDelta(delta.text[cut:]))
        else:
            kept.append(delta)
    return kept


def _common_length(first: str, second: str) -> int:
    """Return the length of the longest beginning that two texts have in common."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
