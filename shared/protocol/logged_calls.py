"""Calls of providers as a stream's log shows them: the output of each, for a worker that has not seen it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from msgspec import UNSET

from shared.protocol.events import Continued, Event, PartialUsage, Reasoning, Refusal, Start, Token, ToolCall, Usage
from shared.protocol.lineage import Lineage
from shared.protocol.usage import Estimate


@dataclass(slots=True)
class LoggedCall:
    """One call that had output. ``prefix``: characters of the answer that it got besides the request.
    ``input_counts``: as far as the provider reported them before its output."""

    provider: str
    model: str
    prefix: int = 0
    input_counts: PartialUsage | None = None
    deltas: int = 0
    characters: int = 0

    def usage(self, request: Estimate) -> Usage:
        """Estimate the usage from the output."""
        estimate = replace(request, prompt_characters=request.prompt_characters + self.prefix)
        if self.input_counts is not None:
            return estimate.completed(self.input_counts, self.deltas, self.characters)
        return estimate.usage(self.deltas, self.characters)


def calls_of(log: Iterable[Event]) -> list[LoggedCall]:
    """Return the calls that have contributed to a log, in order."""
    calls = list[LoggedCall]()
    for event in log:
        match event:
            case Start():
                counts = None if event.usage is UNSET else event.usage
                calls.append(LoggedCall(event.provider, event.model, input_counts=counts))
            case Continued():
                calls.append(LoggedCall(event.provider, event.model, event.characters))
            case Token():
                _count(calls, event.token, event.n)
            case Reasoning() | Refusal():
                _count(calls, event.text, event.n)
            case ToolCall(complete=False):
                _count(calls, event.arguments, event.n)
    return calls


def _count(calls: list[LoggedCall], text: str, deltas: int) -> None:
    if calls:
        calls[-1].deltas += deltas
        calls[-1].characters += len(text)


class Accounted:
    """Number of the calls of each epoch's log that the ledger has, as the state's field ``accounted`` has it: pairs
    such as ``4:1 8123:2``. A log that continues another has its calls too."""

    def __init__(self, text: str = "") -> None:
        self._calls = {int(epoch): int(n) for epoch, _, n in (pair.partition(":") for pair in text.split())}

    @classmethod
    def of(cls, fields: Mapping[str, bytes]) -> "Accounted":
        return cls(fields.get("accounted", b"").decode())

    @property
    def text(self) -> str:
        return " ".join(f"{epoch}:{n}" for epoch, n in self._calls.items())

    def note(self, epoch: int, calls: int) -> None:
        """Note that the ledger has the first ``calls`` of an epoch's log."""
        self._calls[epoch] = max(calls, self._calls.get(epoch, 0))

    def of_log(self, epoch: int, lineage: Lineage) -> int:
        """Return the number for a log of ``epoch`` that continues its ``lineage``."""
        return max(self._calls.get(each, 0) for each in (epoch, *lineage.epochs))
