"""Targets of the fuzzer: a parser with its inputs, its documented errors and its invariants."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.fuzz.mutations import any_text, as_json, mutated_bytes, mutated_json

#: Makes an input of any kind from randomness.
Make = Callable[[random.Random], Any]


@dataclass(frozen=True)
class Target:
    """One parser. ``run`` feeds it an input and checks what comes out; it may raise ``documented``."""

    name: str
    make: Make
    run: Callable[[Any], None]
    documented: tuple[type[Exception], ...] = ()


def from_bytes(*samples: bytes) -> Make:
    """Make mutations of some bytes."""
    return lambda rng: mutated_bytes(rng.choice(samples), rng)


def from_text(*samples: str) -> Make:
    return lambda rng: any_text(samples, rng)


def from_json(*samples: Any) -> Make:
    """Make mutations of some JSON documents, as bytes."""

    def make(rng: random.Random) -> bytes:
        value = rng.choice(samples)
        while True:
            try:
                return as_json(mutated_json(value, rng), rng)
            except (RecursionError, ValueError):
                continue  # nested too deeply to be written

    return make


def from_values(*samples: Any) -> Make:
    """Make mutations of some JSON documents, parsed."""

    def make(rng: random.Random) -> Any:
        return mutated_json(rng.choice(samples), rng)

    return make
