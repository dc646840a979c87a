"""Answers of the kit's provider. Each is a model's name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

#: Characters of one to four bytes, joined emoji, and combining marks.
UNICODE_TEXT: Final = "Grüße, 世界! 👩‍👩‍👧 naïve e\u0301 Ωμέγα 🇪🇺 \u2028 end."

_TALE: Final = (
    "Above the village stood a mill, and above the mill lay a lake that kept no hours. In spring it came down"
    " the hill like horses; in August it barely remembered the way. Her daughter dug a channel along the slope,"
    " with a gate of oak at its mouth, and nothing was spilt."
)


@dataclass(frozen=True)
class Answer:
    """One answer: its text in pieces, and how it ends. ``error`` is an error event in the stream; ``cut`` breaks the
    connection. ``delay_s`` comes before each piece. ``one_byte``: each write has one byte."""

    pieces: Sequence[str]
    delay_s: float = 0
    ends: Literal["finish", "error", "cut"] = "finish"
    #: Name and arguments of a tool call after the text; the arguments come in two pieces.
    tool: tuple[str, str] | None = None
    one_byte: bool = False


def _words(text: str) -> list[str]:
    return [word + " " for word in text.split()]


ANSWERS: Final[Mapping[str, Answer]] = {
    "short": Answer(_words(_TALE)[:12], 0.01),
    "slow": Answer(_words(_TALE), 0.08),
    "long": Answer([f"{number} {_TALE * 4}\n" for number in range(1000)]),
    "unicode": Answer([UNICODE_TEXT], one_byte=True),
    "tools": Answer(["I look it up."], 0.01, tool=("weather", '{"city": "Zürich", "days": 3}')),
    "error": Answer(_words(_TALE)[:6], 0.01, ends="error"),
    "cut": Answer(_words(_TALE)[:6], 0.01, ends="cut"),
}
