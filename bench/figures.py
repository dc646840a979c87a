"""Names of the measured figures, and their form in a report."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Figure:
    """Form of one figure. ``label`` contains the unit. ``roles``: it is also measured for each process."""

    label: str
    digits: int = 1
    roles: bool = False


FIGURES: Final = {
    "cpu_token_us": Figure("CPU µs/token", roles=True),
    "cpu_all_us": Figure("with the requests", roles=True),
    "cpu_delivery_us": Figure("CPU µs/delivery", roles=True),
    "ttft_p50_ms": Figure("first token p50 ms"),
    "ttft_p99_ms": Figure("p99 ms"),
    "latency_p50_ms": Figure("token latency p50 ms", 2),
    "latency_p99_ms": Figure("p99 ms"),
    "tokens_per_s": Figure("tokens/s", 0),
    "share": Figure("of offered", 3),
    "memory_kib": Figure("KiB/stream", roles=True),
    "idle_cpu_ms": Figure("CPU ms/s", roles=True),
    "answer_cpu_ms": Figure("CPU ms/answer", 2, roles=True),
    "kept_bytes": Figure("bytes/answer", 0, roles=True),
    "missed_p50_ms": Figure("back → first missed token p50 ms"),
    "missed_p99_ms": Figure("p99 ms"),
    "cpu_resume_us": Figure("CPU µs/resume", 0, roles=True),
    "storm_ms": Figure("all served ms", 0),
    "closed_p50_ms": Figure("stop → provider closed p50 ms"),
    "closed_p99_ms": Figure("p99 ms"),
    "closed_all_ms": Figure("all ms"),
    "xreads_per_token": Figure("XREADs/token", 2),
}

LOAD: Final = (
    "cpu_token_us",
    "cpu_all_us",
    "ttft_p50_ms",
    "ttft_p99_ms",
    "latency_p50_ms",
    "latency_p99_ms",
    "tokens_per_s",
    "share",
)
UNPACED: Final = ("cpu_token_us", "tokens_per_s", "ttft_p50_ms", "latency_p50_ms", "latency_p99_ms")
FIRST_TOKEN: Final = ("ttft_p50_ms", "ttft_p99_ms")
IDLE: Final = ("memory_kib", "idle_cpu_ms")
IDLE_SYSTEM: Final = ("idle_cpu_ms",)
ANSWER: Final = ("answer_cpu_ms", "ttft_p50_ms", "ttft_p99_ms")
KEPT: Final = ("kept_bytes",)
VIEWERS: Final = ("cpu_delivery_us", "tokens_per_s", "latency_p50_ms", "latency_p99_ms", "xreads_per_token")
RESUME: Final = ("missed_p50_ms", "missed_p99_ms", "storm_ms", "cpu_resume_us")
CANCEL: Final = ("closed_p50_ms", "closed_p99_ms", "closed_all_ms")


@dataclass(frozen=True, slots=True)
class Versus:
    """Comparison of a figure with the same one of ``baseline``: a ratio, or the difference if ``added``."""

    figure: str
    baseline: str
    label: str
    added: bool = False

    def of(self, value: float, base: float) -> float | None:
        if self.added:
            return value - base
        return value / base if base else None


CPU_OF_RESUMABLE: Final = Versus("cpu_token_us", "resumable_stream", "CPU of resumable-stream")
CPU_OF_IN_PROCESS: Final = Versus("cpu_token_us", "in_process", "CPU of in_process")
SPEED_OF_DIRECT: Final = Versus("tokens_per_s", "direct", "speed of direct")
FIRST_TOKEN_ADDED: Final = Versus("ttft_p50_ms", "direct", "first token added ms", added=True)
CPU_OF_ONE_SERVER: Final = Versus("cpu_token_us", "headrace", "CPU of headrace")
