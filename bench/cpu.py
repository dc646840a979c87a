"""CPU time (with threads and children) and memory of processes, from /proc. Linux only."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of the process, its threads and all its descendants; 0 if the process is gone."""
    total = 0.0
    with suppress(OSError):
        total += _reaped_children_s(pid)
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # a thread may end while we look
                # Nanoseconds; `stat` would count ticks of ten milliseconds.
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
                total += sum(cpu_s(int(child)) for child in (task / "children").read_text().split())
    return total


def cpu_by_role(processes: Mapping[str, Sequence[int]]) -> dict[str, float]:
    return {role: sum(map(cpu_s, pids)) for role, pids in processes.items()}


def busy_s() -> float:
    """Return the CPU seconds that all processes have used since the machine started."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / _TICKS_PER_S


def pss_bytes(pid: int) -> int:
    """Return the memory of the process; shared pages are divided among their users."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _reaped_children_s(pid: int) -> float:
    """Return the CPU seconds of children that have ended and were waited for: the broker rewrites its file in one."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[13]) + int(after_name[14])) / _TICKS_PER_S
