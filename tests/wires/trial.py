"""One generated stream: its mutations, its bytes, and the comparison of the outcome with the answer."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.cases.outcomes import Outcome
from tests.wires.answers import OFFERED, GoodAnswer, random_answer
from tests.wires.broken import BROKEN, TEXTS
from tests.wires.building import BUILDERS
from tests.wires.kept_anthropic import ANTHROPIC, ANTHROPIC_LAST
from tests.wires.kept_calls import CALLS
from tests.wires.kept_framing import FRAMING, Mutation
from tests.wires.kept_ollama import OLLAMA, OLLAMA_LAST
from tests.wires.kept_openai import OPENAI, OPENAI_LAST
from tests.wires.kept_responses import RESPONSES, RESPONSES_LAST
from tests.wires.stream import WireStream
from workers.writing.surrogates import well_formed

#: The tools of each request.
REQUEST_TOOLS: Final = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "required": ["x"] * required}}}
    for name, required in OFFERED.items()
]
_KEPT: Final[Mapping[str, tuple[Mutation, ...]]] = {
    "openai": (*OPENAI, *CALLS),
    "anthropic": ANTHROPIC,
    "ollama": OLLAMA,
    "responses": RESPONSES,
}
_LAST: Final = {
    "openai": OPENAI_LAST,
    "anthropic": ANTHROPIC_LAST,
    "ollama": OLLAMA_LAST,
    "responses": RESPONSES_LAST,
}
_CLASSES: Final = ("kept",) * 5 + ("broken",) * 3 + ("texts",)


@dataclass(frozen=True)
class Trial:
    """Stream ``number`` of a run with ``seed``. ``left_out``: mutations, by their place, that are not applied."""

    seed: int
    number: int
    left_out: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        return f"{self.seed}:{self.number}"

    def stream(self) -> tuple[WireStream, str, list[str]]:
        """Return the stream, its class, and the names of the mutations applied to it."""
        rng = random.Random(self.name)
        wire, kind = rng.choice(list(BUILDERS)), rng.choice(_CLASSES)
        answer = random_answer(rng)
        stream = WireStream(wire, answer, BUILDERS[wire](answer, rng), seed=self.name)
        chosen = list(enumerate(_mutations(wire, kind, rng)))
        applied = [(at, mutation) for at, mutation in chosen if at not in self.left_out]
        for at, mutation in applied:
            mutation(stream, random.Random(f"{self.name}:{at}"))
        return stream, kind, [f"{at} {mutation.__name__}" for at, mutation in applied]

    def count(self) -> int:
        """Number of mutations."""
        return len(self.stream()[2])


def _mutations(wire: str, kind: str, rng: random.Random) -> list[Mutation]:
    framing = _some(FRAMING, rng, 4)
    match kind:
        case "broken":
            return [*framing, rng.choice(BROKEN)]
        case "texts":
            return [rng.choice(TEXTS), *_some(_KEPT[wire], rng, 4), *framing]
    return [*_some(_KEPT[wire], rng, 6), *_some(_LAST[wire], rng, 1), *framing]


def _some(mutations: Sequence[Mutation], rng: random.Random, most: int) -> list[Mutation]:
    """Return some mutations in their own order."""
    places = rng.sample(range(len(mutations)), min(len(mutations), rng.randrange(most + 1)))
    return [mutations[at] for at in sorted(places)]


def faults(stream: WireStream, kind: str, seen: Outcome) -> list[str]:
    """Differences from the only outcomes that are right for a stream of this class."""
    found = [*seen.faults, *(fault for call in seen.calls for fault in call.faults())]
    if seen.error is not None:
        if seen.complete_calls:
            found.append(f"complete calls before the error {seen.error}")
        return [*found, f"error {seen.error}"] if kind != "broken" else found
    expected = _expected(stream.answer)
    got = _got(seen, expected["ids"])
    if kind == "broken" and not _is_more(got["usage"], expected["usage"]):
        got["usage"] = expected["usage"]  # counts that the break took are estimated
    return found + [
        f"{name}: wanted {expected[name]!r}, got {got[name]!r}" for name in got if got[name] != expected[name]
    ]


def _expected(answer: GoodAnswer) -> dict[str, Any]:
    return {
        "text": well_formed("".join(answer.text)),
        "reasoning": well_formed("".join(answer.reasoning)),
        "calls": [[call.name, json.loads(call.arguments)] for call in answer.calls],
        "ids": [call.id for call in answer.calls],
        "finish": answer.finish,
        "usage": answer.usage,
    }


def _got(seen: Outcome, expected_ids: list[str | None]) -> dict[str, Any]:
    ids = [call.id for call in seen.complete_calls]
    if len(ids) == len(expected_ids) == len(set(ids)) and all(ids):
        ids = [None if wanted is None else got for got, wanted in zip(ids, expected_ids, strict=True)]
    return {
        "text": seen.text,
        "reasoning": seen.reasoning,
        "calls": [call.parsed for call in seen.complete_calls],
        "ids": ids,
        "finish": seen.finish,
        "usage": seen.usage,
    }


def _is_more(got: list[int] | None, whole: list[int]) -> bool:
    return got is not None and any(count > most for count, most in zip(got, whole, strict=True))
