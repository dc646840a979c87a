"""Runs generated streams through a real provider's port, worker, gateway and socket."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from tests.cases.outcomes import native_outcome
from tests.fakes import Answer
from tests.system import System
from tests.wires.running import Failure
from tests.wires.trial import REQUEST_TOOLS, Trial, faults

SETTINGS: Final[dict[str, Any]] = {"end_grace_s": 1, "provider_retries": 0}
_CONCURRENCY: Final = 24


async def failures_of_system(system: System, seed: int, numbers: Iterable[int]) -> list[str]:
    room = asyncio.Semaphore(_CONCURRENCY)

    async def one(number: int) -> Failure | None:
        async with room:
            return await _failure(system, Trial(seed, number))

    found = await asyncio.gather(*map(one, numbers))
    return [str(failure) for failure in found if failure is not None]


async def _failure(system: System, trial: Trial) -> Failure | None:
    stream, kind, _ = trial.stream()
    model = f"wire {trial.name}"
    system.fake.play(model, Answer(segments=stream.pieces(), end="reset" if stream.is_reset else "finish"))
    async with await system.stream(model, provider=stream.wire, tools=REQUEST_TOOLS) as connection:
        found = faults(stream, kind, native_outcome(await connection.rest()))
    return Failure(trial, found) if found else None
