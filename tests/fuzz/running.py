"""Runs inputs through a target, each within limits of CPU and memory, and describes what failed."""

import random
import resource
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from tests.fuzz.target import Target

#: CPU that one input may take: a hundred times what the slowest one needs on a slow machine.
_MOST_CPU_S: Final = 10.0
#: Growth of the process' peak memory that one input may cause.
_MOST_GROWTH_KIB: Final = 256 * 1024


class TooExpensive(BaseException):
    """An input took more CPU or memory than any input may. Derived from BaseException, so that no parser catches
    it."""


def failure_of(target: Target, seed: int, number: int, *, most_cpu_s: float = _MOST_CPU_S) -> str | None:
    """Run input ``number`` of a target; return a description if it failed."""
    made = target.make(random.Random(f"{seed}:{target.name}:{number}"))
    try:
        with _limited(most_cpu_s):
            target.run(made)
    except target.documented:
        return None
    except (Exception, TooExpensive) as error:  # noqa: BLE001
        trace = "".join(traceback.format_exception(error, limit=-6))[-3000:]
        repeat = f"--seed {seed} --target {target.name} --number {number}"
        return f"{target.name}: {type(error).__name__}\n{repeat}\n{repr(made)[:4000]}\n{trace}"
    return None


def failures(target: Target, seed: int, numbers: range, *, until: float = float("inf")) -> list[str]:
    """Run a range of inputs, but no new one after ``until`` (monotonic). Return descriptions of those that failed."""
    found: list[str] = []
    for number in numbers:
        if time.monotonic() >= until:
            break
        if (failure := failure_of(target, seed, number)) is not None:
            found.append(failure)
    return found


@contextmanager
def _limited(most_cpu_s: float) -> Iterator[None]:
    peak = _peak_kib()
    before = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, most_cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    if (growth := _peak_kib() - peak) > _MOST_GROWTH_KIB:
        raise TooExpensive(f"{growth // 1024} MiB")


def _stop(_number: int, _frame: FrameType | None) -> Any:
    raise TooExpensive("CPU")


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
