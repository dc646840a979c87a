"""Findings that need Redis: its servers, and the state that processes keep there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headrace import data_dir
from headrace.check_rows import WRONG
from headrace.data_dir import DataDirError
from headrace.doctor.clocks import clock
from headrace.doctor.findings import Finding, note, ok, wrong
from headrace.doctor.processes import examine_processes, gateway_urls
from headrace.doctor.work import examine_work
from shared.broker.client import REDIS_ERRORS, Client, connect
from shared.broker.cluster.fitness import fitness_of
from shared.broker.data_version import describe_refusal, read_version
from shared.broker.examination import Server, examine
from shared.broker.keys import DATA_VERSION
from shared.broker.redis_address import safe_address
from shared.broker.retention_fit import read_retention_fit
from shared.broker.tls_diagnosis import diagnose
from shared.broker.trouble import Reason
from shared.configuration.configuration import Configuration
from shared.errors import BrokerFull, BrokerUnavailable

_NEARLY_FULL: Final = 0.8
_FULL: Final = 0.98
_SLOW_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class System:
    """Result of this part. ``was_reached``: Redis could be read. ``gateway_urls``: of gateways that may be reached
    from this machine."""

    findings: Sequence[Finding]
    was_reached: bool
    gateway_urls: Sequence[str] = field(default=())


async def examine_system(configuration: Configuration, directory: Path) -> System:
    """Examine Redis and the processes. Without Redis there is one finding that says so."""
    settings = configuration.settings
    url = settings.redis_url
    is_own = "redis_url" not in settings.model_fields_set
    found = None
    if is_own:
        try:
            found = data_dir.broker_url(directory)
        except DataDirError as error:
            return System([wrong("redis", "Redis", str(error))], was_reached=False)
        url = found or url
    client = connect(url)
    try:
        return await _with_redis(client, configuration)
    except BrokerUnavailable as error:
        trouble = await diagnose(client, error)
        is_stopped = is_own and (found is None or trouble.reason == Reason.REFUSED)
        if not is_stopped:
            return System([wrong("redis", "Redis", trouble.detail)], was_reached=False)
        skipped = "not tested, nor clocks, workers, providers, queue and webhooks: HEADRACE_REDIS_URL is not set, and"
        running = "headrace up, which starts its own, is not running"
        return System([note("redis", "Redis", f"{skipped} {running}")], was_reached=False)
    finally:
        await client.aclose()


async def _with_redis(client: Client, configuration: Configuration) -> System:
    findings = await _redis(client)
    findings += await _retention(client, configuration.settings.retention_s)
    version = await _data_version(client)
    findings.append(version)
    if version.state == WRONG:  # its data may have another form
        return System(findings, was_reached=False)
    processes, process_findings = await examine_processes(client, configuration)
    findings += process_findings
    findings += await examine_work(client, configuration)
    return System(findings, was_reached=True, gateway_urls=gateway_urls(processes))


async def _redis(client: Client) -> list[Finding]:
    fitness = fitness_of(client)
    trouble = []
    try:
        await fitness.check()
    except BrokerFull as error:
        trouble = [wrong("redis", "Redis", error.detail)]
    servers = await examine(client)
    address = safe_address(client.url)
    warnings = [note("redis", "Redis", warning) for warning in fitness.warnings]
    return [*trouble, *warnings, *(each for server in servers for each in _server(server, address))]


def _server(server: Server, address: str) -> Iterator[Finding]:
    name = f"Redis {server.name}".rstrip()
    at = server.name or address
    yield ok("redis", name, f"version {server.version} at {at}")
    yield _memory(server, name)
    yield _persistence(server, name)
    milliseconds = f"{server.latency_s * 1000:.1f} ms for a round trip"
    if server.latency_s > _SLOW_S:
        advice = "each first token takes several; run Redis near gateways and workers (docs/scaling.md)"
        yield note("redis_latency", name, f"{milliseconds} from this machine: {advice}")
    else:
        yield ok("redis_latency", name, milliseconds)
    yield clock("redis_clock", name, server.offset_s)


def _memory(server: Server, name: str) -> Finding:
    used = f"{server.used / 1e6:.0f} MB used"
    if server.evicted:
        detail = f"{server.evicted} keys were evicted, so answers were lost: maxmemory-policy was not noeviction"
        return wrong("redis_memory", name, f"{detail}; keep it noeviction")
    if not server.limit:
        return note(
            "redis_memory",
            name,
            f"{used}, policy {server.policy}, no limit; set maxmemory below the machine's memory",
        )
    seen = f"{used} of {server.limit / 1e6:.0f} MB ({server.full:.0%}), policy {server.policy}"
    if server.full >= _FULL:
        return wrong(
            "redis_memory", name, f"{seen}: new requests are refused; see docs/runbook.md HeadraceRedisNearlyFull"
        )
    if server.full >= _NEARLY_FULL:
        advice = "the oldest answers are dropped; raise maxmemory or shorten HEADRACE_RETENTION_S"
        return note("redis_memory", name, f"{seen}: {advice}")
    return ok("redis_memory", name, seen)


async def _retention(client: Client, retention_s: float) -> list[Finding]:
    fit = await read_retention_fit(client, retention_s)
    if fit is None:
        return []  # redis_memory says that there is no limit
    if fit.is_small:
        return [note("redis_retention", "Redis", f"{fit}: {fit.advice}")]
    return [ok("redis_retention", "Redis", str(fit))]


def _persistence(server: Server, name: str) -> Finding:
    if server.writes_fail:
        advice = "a restart of Redis would lose answers; look at its log and its disk"
        return wrong("redis_persistence", name, f"the last write to disk failed: {advice}")
    if server.is_durable:
        return ok("redis_persistence", name, "append-only file")
    kept = (
        "snapshots only: a restart loses what came after the last one" if server.has_snapshots else "in memory only"
    )
    return note("redis_persistence", name, f"{kept}; set appendonly yes to keep answers over a restart")


async def _data_version(client: Client) -> Finding:
    try:
        found = await read_version(client.servers)
    except REDIS_ERRORS as error:
        raise BrokerUnavailable(detail=f"Redis at {client.target}: {type(error).__name__}") from error
    if found == DATA_VERSION:
        return ok("data_version", "data", f"version {found}, as this command's")
    if not found:
        return note("data_version", "data", "no version: no gateway or worker has used this database yet")
    return wrong("data_version", "data", describe_refusal(found))
