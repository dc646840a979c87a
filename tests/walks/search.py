"""Runs walks by seed, and reduces one that breaks a rule to the moves that matter."""

import random
from contextlib import AbstractAsyncContextManager

from tests.walks.bench import (
    STEPS,
    Bench,
)
from tests.walks.moves import MOVES, Steps
from tests.walks.walk import Walk


async def walk(bench: Bench, seed: int) -> tuple[Steps, Exception | None]:
    """Return the steps taken, and the error if there was one."""
    dice = random.Random(seed)
    steps: Steps = []
    one = Walk(bench)
    try:
        async with begun(one, seed):
            while len(steps) < STEPS and not (steps and one.is_over):
                able = {name: move for name, move in MOVES.items() if move.may(one)}
                (name,) = dice.choices(list(able), [move.weight for move in able.values()])
                steps.append((name, {key: dice.choice(values) for key, values in able[name].choices.items()}))
                await one.do(name, **steps[-1][1])
            await one.come_to_rest()
    except Exception as error:  # noqa: BLE001  every error is a finding
        return steps, error
    return steps, None


def beginning(seed: int) -> tuple[str, str]:
    return ("continue", "cancel")[seed % 2], ("restart", "restart", "fail")[seed % 3]


def begun(one: Walk, seed: int) -> AbstractAsyncContextManager[None]:
    return one.begun(
        *beginning(seed),
        is_stored=seed % 5 < 2,
        is_archived=seed % 4 < 2,
        is_contended=seed % 7 < 2,
        is_batch=seed % 7 == 1,
    )


async def walk_again(bench: Bench, seed: int, steps: Steps) -> Exception | None:
    one = Walk(bench)
    try:
        async with begun(one, seed):
            for name, arguments in steps:
                if MOVES[name].may(one):
                    await one.do(name, **arguments)
            await one.come_to_rest()
    except Exception as error:  # noqa: BLE001
        return error
    return None


async def cut_down(bench: Bench, seed: int, steps: Steps, error: Exception) -> tuple[Steps, Exception]:
    """Without every step that is not needed to go wrong."""
    for at in reversed(range(len(steps))):
        fewer = steps[:at] + steps[at + 1 :]
        if (other := await walk_again(bench, seed, fewer)) is not None:
            steps, error = fewer, other
    return steps, error


def walk_all(bench: Bench, seeds: range) -> str:
    """Describe the first walk that went wrong; '' if all went well."""
    for number, seed in enumerate(seeds, 1):
        steps, error = bench.run(walk(bench, seed))
        if error is not None:
            steps, error = bench.run(cut_down(bench, seed, steps, error))
            taken = "".join(f"\n    {name} {arguments}" for name, arguments in steps)
            return f"walk {number}, seed {seed} {beginning(seed)}:{taken}\n{type(error).__name__}: {error}"
    return ""
