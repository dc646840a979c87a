"""Findings about gateways and workers, from the reports that they keep in Redis."""

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Final

from headrace.doctor.clocks import clock
from headrace.doctor.findings import Finding, note, ok, wrong
from shared.broker import shared_configuration
from shared.broker.client import Client
from shared.broker.processes import Process, read_clock_offsets, read_processes
from shared.configuration.configuration import Configuration
from shared.version import VERSION

#: File descriptors of a process that are not for streams or clients.
_RESERVED: Final = 128
#: A gateway with fewer open files is full with few readers.
_FEW_FILES: Final = 4096
_HIGH_LAG_S: Final = 0.1
_BEFORE_HOOKS: Final = ("0.1.", "0.2.")
#: What a process without hooks does in a system with hooks.
_WITHOUT_HOOKS: Final = {
    "gateway": "its requests are stored unchecked, and only workers with hooks check them before the provider",
    "worker": "it ends streams of gateways with hooks, and answers those of other gateways unchecked",
}
#: A report is at most this old when it is read; its age is known to the exchange that reads it.
_MARGIN_S: Final = 0.5


async def examine_processes(
    client: Client, configuration: Configuration
) -> tuple[Sequence[Process], Sequence[Finding]]:
    """Return the running processes and the findings about them. Raises :class:`BrokerUnavailable`."""
    processes = await read_processes(client)
    newest = await shared_configuration.read(client)
    offsets = await read_clock_offsets(client, [each.id for each in processes])
    expected = newest.hash if newest is not None else ""
    findings = [*_missing(processes), *_versions(processes), *_configurations(processes, expected, configuration)]
    findings += _hooks(processes)
    for process in processes:
        findings += _process(process)
        if process.id in offsets:
            findings.append(clock("process_clock", _name(process), offsets[process.id], _MARGIN_S))
    return processes, findings


def gateway_urls(processes: Sequence[Process]) -> list[str]:
    """Return URLs of gateways for this machine: of those that run here by loopback, of others by their names."""
    urls = []
    for process in processes:
        if process.kind != "gateway" or process.listens_on is None or not process.listens_on[1]:
            continue
        host, port = process.listens_on
        if process.host == socket.gethostname():
            host = _local(host)
        elif _local(host) != host or _is_loopback(host):
            host = process.host
        urls.append(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    return urls


def _local(host: str) -> str:
    """Return loopback for a wildcard address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _missing(processes: Sequence[Process]) -> Iterator[Finding]:
    counts = Counter[str](process.kind for process in processes)
    for kind, loss in (
        ("worker", "requests wait, and fail after HEADRACE_QUEUE_TIMEOUT_S"),
        ("gateway", "clients reach nothing"),
    ):
        if not counts[kind]:
            yield wrong(f"{kind}s", f"{kind}s", f"none reports: {loss}; start headrace {kind}")
        else:
            yield ok(f"{kind}s", f"{kind}s", f"{counts[kind]} running")


def _versions(processes: Sequence[Process]) -> Iterator[Finding]:
    others = [process for process in processes if process.version != VERSION]
    for process in others:
        version = f"version {process.version}" if process.version else "an older version, without a report of it"
        yield note("version", _name(process), f"{version}; this command has {VERSION}; upgrade all processes")
    if processes and not others:
        yield ok("version", "versions", f"all {VERSION}, as this command")


def _configurations(processes: Sequence[Process], expected: str, configuration: Configuration) -> Iterator[Finding]:
    differing = [each for each in processes if expected and each.load.configuration not in {"", expected}]
    for process in differing:
        detail = f"configuration {process.load.configuration}, the newest is {expected}; run headrace reload"
        yield wrong("configuration", _name(process), detail)
    for process in processes:
        if process.problem:
            yield wrong("configuration", _name(process), f"refused the last reload: {process.problem}")
    if processes and not differing and expected:
        yield ok("configuration", "configuration", f"all have {expected}")
    if expected and configuration.settings.config is not None and configuration.hash != expected:
        detail = f"{configuration.settings.config} has hash {configuration.hash}, the processes {expected}"
        yield note("configuration", "configuration", f"{detail}; run headrace reload if the file here is newer")


def _hooks(processes: Sequence[Process]) -> Iterator[Finding]:
    """Compare the hooks of all processes; nothing if none has any."""
    names = sorted({process.hooks for process in processes if process.hooks})
    lacking = [process for process in processes if names and not process.hooks]
    for process in lacking:
        is_old = process.version.startswith(_BEFORE_HOOKS) or not process.version
        remedy = "it is too old for hooks: upgrade it" if is_old else "set HEADRACE_HOOKS as on the others"
        yield wrong("hooks", _name(process), f"no hooks: {_WITHOUT_HOOKS[process.kind]}; {remedy}")
    if len(names) > 1:
        yield note("hooks", "hooks", f"processes have different ones: {', '.join(names)}")
    elif names and not lacking:
        yield ok("hooks", "hooks", f"all have {names[0]}")


def _process(process: Process) -> Iterator[Finding]:
    name, load = _name(process), process.load
    needed = load.slots + _RESERVED if process.kind == "worker" else _FEW_FILES
    if process.files and process.files < needed:
        limit = f"limit of {process.files} open files"
        use = f"{load.slots} slots need {needed}" if process.kind == "worker" else "each reader takes one"
        yield note("file_descriptors", name, f"{limit}, {use}: raise ulimit -n (LimitNOFILE in systemd)")
    elif process.files:
        yield ok("file_descriptors", name, f"limit of {process.files} open files")
    if load.lag_s > _HIGH_LAG_S:
        detail = f"its event loop lags by {load.lag_s * 1000:.0f} ms: the machine is short of CPU"
        yield note("event_loop", name, f"{detail}; add processes or cores")
    if load.draining:
        yield note("draining", name, "is draining: it takes no new work")


def _name(process: Process) -> str:
    return f"{process.kind} {process.id} {process.host}"
