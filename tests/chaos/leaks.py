"""Remains that must not exist at the end: sockets, connections to the provider, keys without expiry."""

import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from shared.broker.keys import provider_limit_keys
from tests.chaos.plans import STORING
from tests.chaos.rig import Rig
from tests.system import Gateway

_ESTABLISHED, _CLOSE_WAIT = "01", "08"
_LOUD = (" ERROR ", " CRITICAL", "Traceback")


def open_files(pid: int, but_to_ports: Collection[int]) -> int:
    """Number of descriptors of a process without its connections to those ports and to the archive's file, which
    pools may keep."""
    to_ports = {inode for inode, _, remote in _sockets() if remote in but_to_ports}
    return sum(target not in to_ports and "/archive.db" not in target for target in _targets(pid))


def accepted(gateway: Gateway) -> int:
    """Number of client connections that the gateway still has."""
    ours = set(_targets(gateway.pid))
    return sum(local == gateway.port and inode in ours for inode, local, _ in _sockets())


async def complaints_at_the_end(rig: Rig, baseline: dict[str, int]) -> list[str]:
    """Return all complaints, after waiting a while for things to settle. ``baseline``: open files of each gateway
    before its first client."""
    found: list[str] = []
    deadline = time.monotonic() + 30

    async def settled(condition: bool) -> bool:
        return condition or time.monotonic() > deadline

    async def quiet() -> bool | None:
        is_quiet = not list(_unsettled(rig, baseline)) and not await _slots(rig)
        return True if await settled(is_quiet) else None

    await rig.eventually(quiet, timeout_s=60)
    found += _unsettled(rig, baseline)
    if slots := await _slots(rig):
        found.append(f"{slots} slots of the provider are held")
    found += [f"key without expiry: {key}" for key in await rig.keys_without_expiry()]
    found += [f"{p.name} is not alive" for p in rig.processes if not p.alive]
    return found


async def _slots(rig: Rig) -> int:
    """Return the number of slots whose lease has not ended."""
    now = time.time_ns() // 1_000_000
    return sum([await rig.count(provider_limit_keys(name)[0], now) for name in ("openai", STORING)])


def _unsettled(rig: Rig, baseline: dict[str, int]) -> Iterator[str]:
    open_calls = [call for call in rig.fake.calls if not call.closed.is_set()]
    if open_calls:
        yield f"{len(open_calls)} connections to the provider are open, as of call {open_calls[0].number}"
    for i, gateway in enumerate(rig.gateways):
        if gateway.alive:
            if count := accepted(gateway):
                yield f"{gateway.name} has {count} connections of clients"
            files = open_files(gateway.pid, rig.broker_ports(i))
            if files > baseline[gateway.name]:
                yield f"{gateway.name} has {files} open files, had {baseline[gateway.name]}"


def loud_lines(rig: Rig) -> dict[str, int]:
    """Return the errors in the processes' logs, without ids, with their number."""
    found: dict[str, int] = {}
    for process in rig.processes:
        for line in process.log.read_text(errors="replace").splitlines():
            if any(word in line for word in _LOUD):
                words = [word for word in line.split()[2:] if not any(c.isdigit() for c in word)]
                text = f"{process.name.partition('.')[0]}: {' '.join(words) or line}"
                found[text] = found.get(text, 0) + 1
    return found


def _targets(pid: int) -> Iterator[str]:
    """Yield the targets of its descriptors: a socket's inode, or a path."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            yield str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]")


def _sockets() -> Iterator[tuple[str, int, int]]:
    """Inode, local and remote port of every connection on this machine."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] in (_ESTABLISHED, _CLOSE_WAIT):
            yield fields[9], int(fields[1].rpartition(":")[2], 16), int(fields[2].rpartition(":")[2], 16)
