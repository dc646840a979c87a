"""Runs the checks and collects their outcomes."""

import asyncio
import time
from collections.abc import Callable, Iterable

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
    """Run one check. A silence or a refusal of the endpoint is a failure of the check."""
    began = time.monotonic()

    def outcome(name: OutcomeName, detail: str, evidence: Iterable[str] = ()) -> Outcome:
        return Outcome(check, name, detail, tuple(evidence), time.monotonic() - began)

    missing = [
        f"{feature}: {lab.profile.lacks[feature]}" for feature in sorted(check.needs & lab.profile.lacks.keys())
    ]
    if missing:
        return outcome("not_applicable", "; ".join(missing))
    try:
        async with asyncio.timeout(lab.options.check_timeout_s):
            return outcome("passed", await check.run(lab))
    except NotApplicable as reason:
        return outcome("not_applicable", str(reason))
    except Violation as violation:
        return outcome("failed", str(violation), violation.evidence)
    except (Stalled, Unreachable, Refused) as trouble:
        return outcome("failed", f"{type(trouble).__name__.lower()}: {trouble}")
    except TimeoutError:
        return outcome("failed", f"not finished within {lab.options.check_timeout_s:g} s")


def in_order(checks: Iterable[Check]) -> list[Check]:
    """Sort checks by their rules; those that judge all connections come last."""
    return sorted(checks, key=lambda check: (check.judges_all, int(check.rule.removeprefix("C"))))
