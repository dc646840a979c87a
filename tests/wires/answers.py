"""Random answers of a model, and the part of an answer that must reach the client."""

import json
import random
from dataclasses import dataclass, field
from typing import Any, Final

#: Names that begin alike, so that a name in pieces is ambiguous for a while. The last two are not offered.
TOOLS: Final = ("get_weather", "get", "bash", "search-web", "read_file", "read.file", "get_weather_of")
#: The tools of each request; one of them requires arguments.
OFFERED: Final = {name: name == "bash" for name in TOOLS[:5]}
FINISHES: Final = ("stop", "length", "content_filter")
_WORDS: Final = (
    *(
        "Hello",
        " world",
        "é",
        "日本語",
        "👩‍👩‍👧",
        "\u2028",
        "\n\n",
        "\r\n",
        "data: x\n\n",
        "[DONE]",
        '"}',
        "\\",
        "{",
        "}",
    ),
    *(
        "null",
        " ",
        "\t",
        "\x00",
        "\x85",
        "\ufeff",
        "العربية",
        "<think>",
        "event: error",
        "\U0001d518",
        "0",
        "x" * 200,
        "'",
    ),
)
#: The two halves of a character outside the first plane; servers send them in separate deltas.
_HALVES: Final = ("\ud83d", "\ude00")


@dataclass
class GoodCall:
    """``id``: None if the provider gives none, so that the client gets one of ours."""

    id: str | None
    name: str
    fragments: list[str]

    @property
    def arguments(self) -> str:
        return "".join(self.fragments)


@dataclass
class GoodAnswer:
    """``usage`` is [input, output]. Mutations change an answer if they change its meaning."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[GoodCall] = field(default_factory=list)
    finish: str = "stop"
    usage: list[int] = field(default_factory=lambda: [0, 0])


def random_answer(rng: random.Random) -> GoodAnswer:
    answer = GoodAnswer(usage=[rng.randrange(1, 5000), rng.randrange(1, 500)])
    answer.text = _texts(rng, rng.choice((0, 1, 2, 5, 12)))
    answer.reasoning = _texts(rng, rng.choice((0, 0, 1, 4)))
    names = [rng.choice(TOOLS) for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))]
    answer.calls = [
        GoodCall(f"call_{at}_{rng.randrange(10**6)}", name, _arguments(rng, least=int(OFFERED.get(name, False))))
        for at, name in enumerate(names)
    ]
    answer.finish = "tool_calls" if names else rng.choice(FINISHES)
    return answer


def _texts(rng: random.Random, count: int) -> list[str]:
    texts = ["".join(rng.choices(_WORDS, k=rng.randrange(1, 4))) for _ in range(count)]
    if count and rng.random() < 0.2:
        at = rng.randrange(count + 1)
        texts[at:at] = _HALVES
    return texts


def _arguments(rng: random.Random, *, least: int) -> list[str]:
    """Return the text of a JSON object with ``least`` members or more, cut at random places: within names, escapes
    and numbers too."""
    names = rng.sample(("city", "cmd", "日", "a b"), rng.randrange(least, 3))
    value = {name: _value(rng, 2) for name in names}
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, None, 1)))
    cuts = sorted({rng.randrange(1, len(text)) for _ in range(rng.choice((0, 1, 1, 3, 8)))})
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _value(rng: random.Random, depth: int) -> Any:
    simple = (1, -2.5, True, None, "Bern", 'a"b\\', "{}}{", "ü👩", "", 10**12)
    match rng.randrange(5 if depth else 3):
        case 3:
            return [_value(rng, depth - 1) for _ in range(rng.randrange(3))]
        case 4:
            return {key: _value(rng, depth - 1) for key in rng.sample(("a", "b", "{", '"'), rng.randrange(3))}
    return rng.choice(simple)
