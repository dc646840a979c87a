"""Rounds over the targets of a request: each is tried once a round, and again in the next if its failure may pass."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.errors import ProviderError
from shared.schemas import ChatRequest
from workers.jobs.seam import STARTED_OVER

_OPEN = "provider_circuit_open"


@dataclass(slots=True)
class Candidate:
    """One target. ``failure``: its last one. ``is_out``: it is not tried again."""

    request: ChatRequest
    failure: ProviderError | None = None
    is_out: bool = False

    def failed(self, error: ProviderError, *, longest_wait_s: float) -> None:
        """Note a failure. A failure of the provider itself is reported rather than the breaker that it opened."""
        is_open = error.code == _OPEN
        if self.failure is None or not is_open:
            self.failure = error
        is_final = is_open or not error.retryable or error.code == STARTED_OVER
        self.is_out = is_final or (error.retry_after_s or 0) > longest_wait_s


def untried(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates of the next round."""
    return [each for each in candidates if not each.is_out]


def failure_of(candidates: Sequence[Candidate]) -> ProviderError:
    """Return the failure of a round: the one that may pass first, else the last one that is no open breaker."""
    failures = [each.failure for each in untried(candidates) if each.failure is not None]
    if failures:
        return min(failures, key=lambda failure: failure.retry_after_s or 0)
    known = [each.failure for each in candidates if each.failure is not None]
    return next((each for each in reversed(known) if each.code != _OPEN), known[-1])
