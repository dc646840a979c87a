"""Findings about providers, the queue and webhooks, from Redis."""

import time
from collections.abc import Iterator
from typing import Final

from headrace.doctor.findings import Finding, note, ok, wrong
from headrace.table import counted
from shared.broker.catalog import LIST_PROBLEMS
from shared.broker.client import Client
from shared.broker.deliveries import count_owed
from shared.broker.overview import Overview, read_overview
from shared.broker.paused_keys import pause_of
from shared.broker.provider_states import ProviderState, read_provider_states
from shared.configuration.configuration import Configuration

_LONG_WAIT_S: Final = 30.0


async def examine_work(client: Client, configuration: Configuration) -> list[Finding]:
    """Return the findings. Raises :class:`BrokerUnavailable`."""
    names = list(configuration.providers) if configuration.settings.config is not None else []
    states = await read_provider_states(client, names)
    overview = await read_overview(client, states)
    findings = [each for name, state in states.items() for each in _provider(name, state)]
    if not states:
        findings.append(wrong("providers", "providers", "none on offer: no worker has published its models"))
    return [*findings, _queue(overview), *_failures(overview), *await _webhooks(client, configuration)]


def _provider(name: str, state: ProviderState) -> Iterator[Finding]:
    title = f"provider {name}"
    if state.offered is None:
        yield wrong("provider", title, "no worker offers it; run headrace check on a worker's machine")
        return
    troubles = False
    if problem := LIST_PROBLEMS.get(state.offered.problem):
        troubles = True
        yield wrong("provider_models", title, f"its models cannot be listed: {problem}; headrace check tests it")
    for model, breaker in state.breakers.items():
        troubles = True
        if breaker.open:
            detail = f"{model}: circuit breaker open after {breaker.failures} failures"
            yield wrong("circuit_breaker", title, f"{detail}; requests fail or go to fallbacks until it answers")
        else:
            yield note("circuit_breaker", title, f"{model}: {breaker.failures} failures in a row")
    for pause, until_ms in state.pauses.items():
        troubles = True
        key_id, _, model = pause.partition(" ")
        if pause == pause_of(key_id):
            yield wrong("provider_key", title, f"refused the key with id {key_id}; replace it, then headrace reload")
        else:
            left_s = max(0, until_ms / 1000 - time.time())
            yield note("provider_key", title, f"rate limited: {model} with key id {key_id} for {left_s:.0f} s")
    if not troubles:
        models = "any model" if state.offered.open else counted(len(state.offered.models), "model")
        waiting = f", {state.usage.waiting} streams wait for its limits" if state.usage.waiting else ""
        yield ok("provider", title, f"{models}{waiting}")


def _queue(overview: Overview) -> Finding:
    oldest_s = max(0, overview.at_ms - overview.oldest_ms) / 1000 if overview.oldest_ms else 0.0
    return queue(overview.waiting, oldest_s, overview.live)


def queue(waiting: int, oldest_s: float, live: int) -> Finding:
    """Judge the queue."""
    seen = f"{waiting} waiting, the oldest for {oldest_s:.1f} s; {live} live streams"
    if oldest_s > _LONG_WAIT_S:
        return wrong("queue", "queue", f"{seen}: add workers, or see docs/runbook.md HeadraceQueueWaits")
    return ok("queue", "queue", seen)


def _failures(overview: Overview) -> Iterator[Finding]:
    reasons: dict[str, int] = {}
    for _, counts in overview.minutes:
        for name, count in counts.items():
            if name.startswith("failed:"):
                reasons[name.removeprefix("failed:")] = reasons.get(name.removeprefix("failed:"), 0) + count
    if reasons:
        listed = ", ".join(
            f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda each: -each[1])
        )
        yield note("failures", "failures", f"in {len(overview.minutes)} minutes: {listed}; /ops has the streams")


async def _webhooks(client: Client, configuration: Configuration) -> Iterator[Finding]:
    waiting, given_up = await count_owed(client)
    seen = f"{waiting} waiting, {given_up} given up"
    if given_up:
        return iter((note("webhooks", "webhooks", f"{seen}: headrace webhooks list has the reasons"),))
    if waiting or configuration.settings.webhook_url:
        return iter((ok("webhooks", "webhooks", seen),))
    return iter(())
