"""Report for a terminal."""

from collections import Counter
from collections.abc import Sequence

from headrace_conformance.check import Outcome

_WORDS = {"passed": "PASS", "failed": "FAIL", "not_applicable": "  - "}


def line(outcome: Outcome) -> str:
    """Return the line of one check, with further ones for its evidence."""
    first = f"{_WORDS[outcome.name]}  {outcome.check.id:<22} {outcome.detail}  ({outcome.seconds:.1f} s)"
    return "\n".join([first, *(f"        {found}" for found in outcome.evidence)])


def summary(outcomes: Sequence[Outcome]) -> str:
    counts = Counter(outcome.name for outcome in outcomes)
    return f"{counts['passed']} passed, {counts['failed']} failed, {counts['not_applicable']} not applicable"
