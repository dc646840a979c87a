"""Responses that real servers were reported to send, replayed through a whole system (``tests/cases``)."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cases import UpstreamCase, upstream_cases
from tests.cases.dialects import DIALECTS, Clients, error_words
from tests.cases.outcomes import Outcome, differences, native_outcome
from tests.fakes import Answer
from tests.system import System
from workers.providers.finish_reasons import REASONS

DOCS: Final = Path(__file__).parent.parent / "docs" / "providers.md"
CASES: Final = upstream_cases()
#: Streams at once.
CONCURRENCY: Final = 24

CUTS: Final[dict[str, Callable[[UpstreamCase], Sequence[bytes]]]] = {
    "whole": lambda case: [case.body],
    "byte by byte": lambda case: [case.body[at : at + 1] for at in range(len(case.body))],
    "event by event": lambda case: case.events,
}


def play(system: System, model: str, case: UpstreamCase, segments: Sequence[bytes], delay_s: float = 0) -> None:
    answer = Answer(
        segments=segments,
        segment_delay_s=delay_s,
        content_type=case.content_type,
        keeps_open=case.keeps_open,
        status=case.status,
    )
    system.fake.play(model, answer)


async def check_all(replay: Callable[[UpstreamCase], Awaitable[list[str]]]) -> None:
    """Replay all cases, many at once. ``replay`` returns the differences from the case's ``want``."""
    room = asyncio.Semaphore(CONCURRENCY)

    async def one(case: UpstreamCase) -> list[str]:
        async with room:
            return await replay(case)

    results = await asyncio.gather(*map(one, CASES))
    found = [f"{case.id}: {'; '.join(found)}" for case, found in zip(CASES, results, strict=True) if found]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("cut", CUTS)
async def test_each_case_ends_as_wanted_however_its_bytes_are_cut(wire_system: System, cut: str) -> None:
    async def replay(case: UpstreamCase) -> list[str]:
        model = f"{case.id} {cut}"
        play(wire_system, model, case, CUTS[cut](case), case.pace_s if cut == "event by event" else 0)
        async with await wire_system.stream(model, provider=case.provider, **case.request) as connection:
            return differences(case.want, native_outcome(await connection.rest()))

    await check_all(replay)


@pytest.mark.parametrize("name", DIALECTS)
async def test_each_case_ends_as_wanted_in_each_dialect(wire_system: System, name: str) -> None:
    async with Clients.of(wire_system) as clients:

        async def replay(case: UpstreamCase) -> list[str]:
            model = f"{case.id} {name}"
            play(wire_system, model, case, [case.body])
            seen = await DIALECTS[name](clients, f"{case.provider}/{model}", case.request)
            return differences(translated(case.want, seen), seen)

        await check_all(replay)


def test_the_docs_list_each_finish_reason() -> None:
    section = DOCS.read_text().partition("### Finish reasons")[2].partition("\n### ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert [re.findall("`([^`]+)`", words) for _, words in rows] == [words.split() for words in REASONS.values()]
    assert [meaning for meaning, _ in rows[:4]] == [f"| `{meaning}`" for meaning in list(REASONS)[:4]]


def translated(want: dict[str, Any], seen: Outcome) -> dict[str, Any]:
    """Return ``want`` without details that the dialects do not have, its error in their words."""
    kept = {name: value for name, value in want.items() if name not in {"reason", "cached", "cache_write"}}
    kept.pop("reasoning_tokens", None)
    if "error" in kept:
        kept["error"] = sorted(set().union(*map(error_words, want["error"])))
        if seen.error and seen.error.startswith("HTTP"):
            kept["text"] = ""
    return kept
