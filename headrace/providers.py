"""The command ``headrace providers``: targets, keys and their state, from the configuration and from Redis."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from headrace.table import table
from shared.broker.catalog import LIST_PROBLEMS
from shared.broker.client import Client
from shared.broker.paused_keys import Pauses, pause_of
from shared.broker.provider_states import ProviderState, read_provider_states
from shared.configuration.configuration import Configuration
from shared.configuration.secret_sources import SecretUnreadable
from workers.providers.endpoint import NO_KEY, ApiKey, key_sources

_HEADER = ("PROVIDER", "KIND", "MODELS", "STREAMS", "WAITING", "REQUESTS/MIN", "TOKENS/MIN", "STATE")


async def providers(configuration: Configuration, client: Client) -> int:
    """Print the table. Return the exit code. Raises :class:`BrokerUnavailable`."""
    states = await read_provider_states(client, list(configuration.providers))
    rows: list[Sequence[str]] = [_HEADER]
    for name, state in states.items():
        rows.append(_provider(name, state, configuration))
    print(table(rows))
    details = [row for name, state in states.items() for row in _details(name, state, configuration)]
    if details:
        print("\n" + table([("PROVIDER", "KEY OR MODEL", "STATE"), *details]))
    return 0


def _provider(name: str, state: ProviderState, configuration: Configuration) -> Sequence[str]:
    entry, offered = configuration.providers.get(name), state.offered
    kind = entry.kind if entry is not None else (offered.family if offered else "") or name
    models = "-" if offered is None else "any" if offered.open else str(len(offered.models))
    usage, limits = state.usage, state.limits
    return (
        name,
        kind,
        models,
        _used(usage.running, limits.concurrent_streams),
        str(usage.waiting),
        _used(usage.requests, limits.requests_per_minute),
        _used(usage.tokens, limits.tokens_per_minute),
        _summary(state),
    )


def _used(used: int, limit: int) -> str:
    """Return ``used/limit``. Without a limit nothing is counted."""
    return f"{used}/{limit}" if limit else "-"


def _summary(state: ProviderState) -> str:
    if state.offered is None:
        return "not offered by any worker; see headrace check"
    troubles = [LIST_PROBLEMS[state.offered.problem]] if state.offered.problem in LIST_PROBLEMS else []
    if opened := sum(breaker.open for breaker in state.breakers.values()):
        troubles.append(f"{opened} breakers open")
    if state.pauses:
        troubles.append("keys paused")
    return ", ".join(troubles) or "ok"


def _details(name: str, state: ProviderState, configuration: Configuration) -> Iterator[Sequence[str]]:
    known = set[str]()
    if name in configuration.providers:
        for place, source in key_sources(name, configuration):
            try:
                key = ApiKey(source.read())
            except SecretUnreadable:
                yield name, place, "not readable here; only workers need it"
                continue
            known.add(key.id)
            yield name, f"{place} {key.masked} id {key.id}", _key_state(key.id, state.pauses) or "ok"
    for key_id in sorted({pause.partition(" ")[0] for pause in state.pauses} - known):
        if paused := _key_state(key_id, state.pauses):
            yield name, "without a key" if key_id == NO_KEY else f"id {key_id}", paused
    for model, breaker in state.breakers.items():
        yield name, model, f"breaker open after {breaker.failures} failures" if breaker.open else "breaker half-open"


def _key_state(key_id: str, pauses: Pauses) -> str:
    """Return the pauses of one key; empty if it has none."""
    if pause_of(key_id) in pauses:
        return "refused by the provider; replace the key, then headrace reload"
    prefix = f"{key_id} "
    models = {name.removeprefix(prefix): end for name, end in pauses.items() if name.startswith(prefix)}
    if not models:
        return ""
    return "rate limited: " + ", ".join(f"{model} until {_time(end)}" for model, end in sorted(models.items()))


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M:%S UTC")
