"""Runs generated streams at the reading layer, and reduces a failing one."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tests.wires.answers import OFFERED
from tests.wires.reading_layer import read
from tests.wires.trial import Trial, faults


@dataclass(frozen=True)
class Failure:
    trial: Trial
    faults: list[str]

    def __str__(self) -> str:
        stream, kind, mutations = self.trial.stream()
        left_out = f" without {sorted(self.trial.left_out)}" if self.trial.left_out else ""
        head = f"stream {self.trial.name}{left_out}, {stream.wire}, {kind}, {mutations}"
        body = "reset after " * stream.is_reset + stream.body().decode(errors="replace")
        return "\n".join([head, *(f"  {fault[:1000]}" for fault in self.faults), body[:6000]])


async def failures(seed: int, numbers: Iterable[int]) -> list[Failure]:
    found = []
    for number in numbers:
        trial = Trial(seed, number)
        if problems := await _faults(trial):
            found.append(Failure(trial, problems))
    return found


async def shrunk(failure: Failure) -> str:
    """Return the failure with the fewest mutations: each that is not needed for it is left out."""
    for at in reversed(range(failure.trial.count())):
        fewer = replace(failure.trial, left_out=failure.trial.left_out | {at})
        if problems := await _faults(fewer):
            failure = Failure(fewer, problems)
    return str(failure)


async def _faults(trial: Trial) -> list[str]:
    stream, kind, _ = trial.stream()
    return faults(stream, kind, await read(stream.wire, stream.pieces(), OFFERED, is_reset=stream.is_reset))
