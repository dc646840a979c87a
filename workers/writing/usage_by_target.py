"""Usage of the calls that have contributed to one answer, and their sum.

An answer has several calls if a provider broke off and another call went on. Counts that a provider did not report
are estimated, for each call from its own output.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from msgspec import UNSET, UnsetType

from shared.protocol.events import PartialUsage, TargetUsage, Usage
from shared.protocol.usage import Estimate


@dataclass(frozen=True, slots=True)
class Output:
    """Output of an answer so far: all calls together."""

    deltas: int
    characters: int


class UsageByTarget:
    """``estimate``: the facts about the request."""

    def __init__(self, estimate: Estimate) -> None:
        self.target = "", ""
        self._request = estimate
        self._estimate = estimate
        self._earlier: list[TargetUsage] = []
        self._before = Output(0, 0)

    def of_call(self, counted: Usage | PartialUsage | None, output: Output, *, cancelled: bool = False) -> Usage:
        """Return the usage of the latest call. ``counted``: as far as its provider counted it."""
        deltas, characters = output.deltas - self._before.deltas, output.characters - self._before.characters
        match counted:
            case Usage():
                return counted
            case PartialUsage():
                return self._estimate.completed(counted, deltas, characters, cancelled=cancelled)
            case _:
                return self._estimate.usage(deltas, characters, cancelled=cancelled)

    def of_held(self, characters: int, prefix_characters: int) -> Usage:
        """Estimate the usage of a call that did not join the answer."""
        return replace(self._request, prompt_characters=self._request.prompt_characters + prefix_characters).usage(
            1, characters
        )

    def go_on(self, target: tuple[str, str], broken_off: Usage, output: Output, prefix_characters: int) -> None:
        """Note that another call goes on. ``broken_off``: usage of the call before. ``prefix_characters``: text that
        the new call gets besides the request."""
        self._earlier.append(TargetUsage(*self.target, broken_off))
        self.target = target
        self._before = output
        self._estimate = replace(self._request, prompt_characters=self._request.prompt_characters + prefix_characters)

    @property
    def joins(self) -> int:
        """Number of calls that went on with the answer of another."""
        return len(self._earlier)

    def all_with(self, latest: Usage) -> list[TargetUsage]:
        """Return the usage of all calls; nothing if there was only one."""
        return [*self._earlier, TargetUsage(*self.target, latest)] if self._earlier else []

    def sum_with(self, latest: Usage) -> Usage:
        """Return the usage of the whole answer."""
        if not self._earlier:
            return latest
        calls = [*(each.usage for each in self._earlier), latest]
        output_tokens = sum(call.output_tokens for call in calls)
        saved = latest.tokens_saved
        return Usage(
            sum(call.input_tokens for call in calls),
            output_tokens,
            estimated=any(call.estimated for call in calls),
            tokens_saved=saved if saved is UNSET else max(0, self._request.max_tokens - output_tokens),
            cached_tokens=_sum([call.cached_tokens for call in calls]),
            cache_write_tokens=_sum([call.cache_write_tokens for call in calls]),
            reasoning_tokens=_sum([call.reasoning_tokens for call in calls]),
        )

    def logged(self, counted: Usage | PartialUsage | None, output: Output) -> Usage | PartialUsage | None:
        """Return the counts for the log: those of the provider, or the sum if there were several calls."""
        return self.sum_with(self.of_call(counted, output)) if self._earlier else counted


def _sum(counts: Sequence[int | UnsetType]) -> int | UnsetType:
    """Return the sum of the counts that are known; unset if there are none."""
    known = [count for count in counts if isinstance(count, int)]
    return sum(known) if known else UNSET
