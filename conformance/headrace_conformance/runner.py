"""Runs the checks and collects their outcomes."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from traceback import extract_tb

import headrace_conformance.checks  # noqa: F401  (registers the checks)
from headrace_conformance.check import CHECKS, Check, NotApplicable, Outcome, OutcomeName, Violation
from headrace_conformance.client import Stalled, Unreachable
from headrace_conformance.concurrently import each
from headrace_conformance.lab import Lab
from headrace_conformance.profile import Refused


async def run_checks(
    lab: Lab, checks: Iterable[Check] | None = None, *, report: Callable[[Outcome], None] = lambda outcome: None
) -> list[Outcome]:
    """Run the checks, all by default, some at once; those that judge all connections come last. ``report`` gets each
    outcome as soon as it is there. The result is in the order of the rules."""
    chosen, outcomes = in_order(CHECKS if checks is None else checks), dict[str, Outcome]()

    async def run(check: Check) -> None:
        outcomes[check.id] = await run_check(lab, check)
        report(outcomes[check.id])

    await each([check for check in chosen if not check.judges_all], run, at_once=lab.options.at_once)
    await each([check for check in chosen if check.judges_all], run, at_once=1)
    return [outcomes[check.id] for check in chosen]


async def run_check(lab: Lab, check: Check) -> Outcome:
    """Run one check. A silence or a refusal of the endpoint is a failure of the check, and so is any exception."""
    began = time.monotonic()
    name, detail, evidence = await _result(lab, check)
    return Outcome(check, name, detail, tuple(evidence), time.monotonic() - began)


async def _result(lab: Lab, check: Check) -> tuple[OutcomeName, str, Sequence[str]]:
    missing = [f"{name}: {lab.profile.lacks[name]}" for name in sorted(check.needs & lab.profile.lacks.keys())]
    if missing:
        return "not_applicable", "; ".join(missing), ()
    try:
        async with asyncio.timeout(lab.options.check_timeout_s):
            return "passed", await check.run(lab), ()
    except NotApplicable as reason:
        return "not_applicable", str(reason), ()
    except Exception as error:  # noqa: BLE001  each is an outcome
        return "failed", *_failure(error, lab.options.check_timeout_s)


def _failure(error: Exception, timeout_s: float) -> tuple[str, Sequence[str]]:
    """Return the detail and the evidence of a check that has failed. An exception that is not the kit's may be the
    endpoint's fault too: a profile did not expect its events."""
    if isinstance(error, Violation):
        return str(error), error.evidence
    if isinstance(error, Stalled | Unreachable | Refused):
        return f"{type(error).__name__.lower()}: {error}", ()
    if isinstance(error, TimeoutError):
        return f"not finished within {timeout_s:g} s", ()
    places = [f"{Path(place.filename).name}:{place.lineno}" for place in extract_tb(error.__traceback__)[-4:]]
    return f"the profile or the kit raised {type(error).__name__}", places


def in_order(checks: Iterable[Check]) -> list[Check]:
    """Sort checks by their rules; those that judge all connections come last."""
    return sorted(checks, key=lambda check: (check.judges_all, int(check.rule.removeprefix("C"))))
