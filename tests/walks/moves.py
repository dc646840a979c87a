"""Possible moves of a walk."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar


@dataclass(frozen=True)
class Move:
    """A possible move: its weight, its condition and the choices of its arguments."""

    do: Callable[..., Awaitable[None]]
    weight: float
    may: Callable[[Any], object]
    choices: dict[str, Sequence[object]]


MOVES: dict[str, Move] = {}
Steps = list[tuple[str, dict[str, Any]]]
Do = TypeVar("Do", bound=Callable[..., Awaitable[None]])


def move(
    weight: float, may: Callable[[Any], object] = lambda _: True, **choices: Sequence[object]
) -> Callable[[Do], Do]:
    def enter(do: Do) -> Do:
        MOVES[do.__name__] = Move(do, weight, may, choices)
        return do

    return enter
