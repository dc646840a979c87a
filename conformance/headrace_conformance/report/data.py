"""Report as data, from which the page is made and which other programs can read."""

import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace_conformance.check import CHECKS, Outcome
from headrace_conformance.profile import Profile

#: Raised if a member changes its meaning.
FORMAT: Final = 1


@dataclass(frozen=True)
class About:
    """Circumstances of a run. ``subject`` is the name and version of the endpoint, as given."""

    subject: str
    command: str
    began_at: str
    seconds: float
    version: str


def as_data(profile: Profile, about: About, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the report. It has ids of events and streams, but neither texts, nor credentials, nor addresses other
    than those in the command."""
    counts = Counter(outcome.name for outcome in outcomes)
    return {
        "format": FORMAT,
        "kit": about.version,
        "python": platform.python_version(),
        "subject": about.subject,
        "profile": {"name": profile.name, "title": profile.title, "reference": profile.reference},
        "lacks": dict(profile.lacks),
        "command": about.command,
        "began_at": about.began_at,
        "seconds": round(about.seconds, 1),
        "is_whole": len(outcomes) == len(CHECKS),
        "counts": {name: counts[name] for name in ("passed", "failed", "not_applicable")},
        "checks": [
            {
                "id": outcome.check.id,
                "title": outcome.check.title,
                "rule": outcome.check.rule,
                "outcome": outcome.name,
                "detail": outcome.detail,
                "evidence": list(outcome.evidence),
                "seconds": round(outcome.seconds, 2),
            }
            for outcome in outcomes
        ],
    }
