"""One result of ``headrace doctor``, and the lines that mend it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from headrace.check_rows import NOTE, OK, WRONG
from shared.printable import one_line

#: Lines of a proxy's configuration, by its name.
Remedies = Mapping[str, str]
_NONE: Final[Remedies] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Finding:
    """``check``: name of the check, for machines. ``name``: the thing, for people. ``detail``: observation,
    meaning and remedy. ``remedies``: lines to set in a proxy."""

    state: str
    check: str
    name: str
    detail: str
    remedies: Remedies = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", one_line(self.detail))  # it may quote a server


def ok(check: str, name: str, detail: str) -> Finding:
    return Finding(OK, check, name, detail)


def note(check: str, name: str, detail: str, remedies: Remedies = _NONE) -> Finding:
    return Finding(NOTE, check, name, detail, remedies)


def wrong(check: str, name: str, detail: str, remedies: Remedies = _NONE) -> Finding:
    return Finding(WRONG, check, name, detail, remedies)


def lines_of(finding: Finding) -> list[Sequence[str]]:
    """Return the rows of a table. Each remedy has a row of its own."""
    remedies = [("", "", f"  {proxy}: {line}") for proxy, line in finding.remedies.items()]
    return [(finding.state, finding.name, finding.detail), *remedies]


def as_json(finding: Finding) -> dict[str, Any]:
    """Return the finding for machines."""
    return {
        "state": finding.state,
        "check": finding.check,
        "name": finding.name,
        "detail": finding.detail,
        "remedies": dict(finding.remedies),
    }
