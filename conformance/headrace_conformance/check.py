"""Checks, their outcomes, and the registry of all checks."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from headrace_conformance.profile import Feature

if TYPE_CHECKING:
    from headrace_conformance.lab import Lab

#: ``not_applicable``: the API lacks what the check needs, or this run cannot show it.
OutcomeName = Literal["passed", "failed", "not_applicable"]


class Violation(Exception):
    """The endpoint breaks a rule. ``evidence``: ids of events, positions, statuses; never texts."""

    def __init__(self, message: str, evidence: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.evidence = list(evidence)


class NotApplicable(Exception):
    """The check cannot be made; the message has the reason."""


@dataclass(frozen=True)
class Check:
    """One check. ``rule`` is the rule of docs/protocol-rules.md that it shows."""

    id: str
    title: str
    rule: str
    needs: frozenset[Feature]
    run: Callable[["Lab"], Awaitable[str]]
    #: Judges the connections of all checks before it.
    judges_all: bool = False


@dataclass(frozen=True)
class Outcome:
    """Result of one check. ``detail`` says how much was checked, why it failed, or why it does not apply."""

    check: Check
    name: OutcomeName
    detail: str
    evidence: tuple[str, ...]
    seconds: float


#: All checks, in the order of their registration.
CHECKS: Final[list[Check]] = []


def check(
    id: str, title: str, *, rule: str, needs: Collection[Feature] = (), judges_all: bool = False
) -> Callable[[Callable[["Lab"], Awaitable[str]]], Callable[["Lab"], Awaitable[str]]]:
    """Register a function as a check. It returns how much it checked, and raises :class:`Violation` or
    :class:`NotApplicable`."""

    def register(function: Callable[["Lab"], Awaitable[str]]) -> Callable[["Lab"], Awaitable[str]]:
        CHECKS.append(Check(id, title, rule, frozenset(needs), function, judges_all))
        return function

    return register
