"""The situations for every program. A scenario raises if the user is worse off than without a gateway."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import repeat
from typing import Any, Final

from tests.fakes import Answer, Counts
from tests.real_clients.cell import Cell

WORDS: Final = ("Hello", ", ", "wor", "ld", ".")
TEXT: Final = "".join(WORDS)
FINAL: Final = Answer(deltas=WORDS)
BEFORE_TOOLS: Final = "I do both"
#: In both providers' format.
_REFUSAL: Final = {
    "type": "error",
    "error": {"type": "invalid_request_error", "message": "not this prompt", "code": None},
}
Scenario = Callable[[Cell], Coroutine[Any, Any, None]]


async def text(cell: Cell) -> None:
    cell.plays(FINAL)
    outcome = await cell.run("text")
    assert outcome.error is None, outcome.error
    assert outcome.text == TEXT


async def parallel_tools(cell: Cell) -> None:
    append = cell.program.append
    cell.plays(
        Answer(deltas=(BEFORE_TOOLS,), tools=[append("1", "one"), append("2", "two")]), cell.program.final(WORDS)
    )
    outcome = await cell.run("tools")
    assert outcome.error is None, outcome.error
    assert outcome.text == TEXT
    assert sorted(cell.lines) == ["one", "two"]
    assert cell.play.results == [0, 2]


async def several_steps(cell: Cell) -> None:
    append, final = cell.program.append, cell.program.final(WORDS)
    lines = ["one", "two", "three"]
    cell.plays(
        *(Answer(deltas=(), reasoning=("Hm",), tools=[append(line, line)]) for line in lines),
        final,
    )
    outcome = await cell.run("tools")
    assert outcome.error is None, outcome.error
    assert outcome.text == TEXT
    assert cell.lines == lines
    assert cell.play.results == [0, 1, 2, 3]


async def image(cell: Cell) -> None:
    program = cell.program
    look = Answer(deltas=(), tools=[program.look("1", cell.image)])
    cell.plays(look, Answer(deltas=(), tools=[program.append("2", "seen")]), cell.program.final(WORDS))
    outcome = await cell.run("image")
    assert outcome.error is None, outcome.error
    assert outcome.text == TEXT
    assert cell.lines == ["seen"]
    assert cell.play.images == [False, True, True], "the image has to be in every request after the tool's call"


async def structured(cell: Cell) -> None:
    value = {"n": 7}
    answer = cell.program.structured(value)
    cell.plays(*([answer, FINAL] if answer.tools else [answer]))
    outcome = await cell.run("structured")
    assert outcome.error is None, outcome.error
    assert outcome.parsed == value


async def cancel(cell: Cell) -> None:
    cell.plays(Answer(deltas=lambda _: repeat("word "), delay_s=0.05))
    running = asyncio.create_task(cell.run("cancel"))
    try:
        call = await cell.nth_call(1)
        await call.wait_deltas(5)
        cell.interrupt()
        await call.wait_closed(timeout_s=20)
        assert call.closed_by_client
        cell.end_input()
        await asyncio.wait_for(running, 20)
        assert len(cell.calls) == 1
    finally:
        running.cancel()
        await asyncio.wait([running])


async def error(cell: Cell) -> None:
    cell.plays(Answer(status=400, error_body=_REFUSAL))
    outcome = await cell.run("error")
    assert outcome.error
    # Claude Code takes its newest features out of the request, one by one, and tries again.
    assert 1 <= len(cell.calls) <= 6, f"{len(cell.calls)} requests"


async def cached_tokens(cell: Cell) -> None:
    cell.plays(Answer(deltas=WORDS, usage=Counts(1000, 50, cached=800)))
    outcome = await cell.run("usage")
    assert outcome.error is None, outcome.error
    assert outcome.cached == 800


#: By column of the table.
SCENARIOS: Final[dict[str, Scenario]] = {
    "text": text,
    "parallel tools": parallel_tools,
    "three steps": several_steps,
    "image by a tool": image,
    "structured": structured,
    "cancel": cancel,
    "error": error,
    "cached tokens": cached_tokens,
}
