"""Writes the measured constants of the capacity model into ``capacity.json``: ``python -m bench.capacity_update``.

They come from the reports ``targets`` and ``headrace`` of ``bench/results``, see ``make bench-reports``, and from
``cluster`` and ``desk``, see ``make bench-cluster``.
"""

import json
import re
from dataclasses import asdict
from typing import Any, Final

from bench.capacity_constants import FILE, load
from bench.capacity_model import beyond_first
from bench.report import FOLDER
from bench.results import Record, Summary, summarize

ROLES: Final = ("gateway", "worker", "redis")
_ANSWER_TOKENS: Final = 500
_IDLE_STREAMS: Final = 5000
_STREAMS: Final = 500
_TOKENS_PER_S: Final = 20
_MASTERS: Final = 3
#: Stored bytes are limited unless a setting says otherwise.
_LIMITS: Final = "stored bytes only, the default"


def main() -> None:
    text = FILE.read_text()
    for name, values in constants().items():
        line = ", ".join(f'"{key}": {value:g}' for key, value in values.items())
        text, found = re.subn(rf'("{name}": \{{\n\s+).*(?=,\n\s+"from")', rf"\g<1>{line}", text)
        if not found:
            raise SystemExit(f"{FILE.name}: no constant {name}")
    FILE.write_text(text)


def constants() -> dict[str, dict[str, float]]:
    """Return the constants by name, rounded."""
    seconds, steady = _report("targets", "500x20")
    _, idle = _report("headrace", "idle")
    _, kept = _report("targets", "kept")
    tokens = _TOKENS_PER_S * seconds
    each = {role: steady.values[f"cpu_token_us.{role}"] for role in ROLES}
    extra = {role: (steady.values[f"cpu_all_us.{role}"] - each[role]) * tokens for role in ROLES}
    waiting = {role: idle.values[f"idle_cpu_ms.{role}"] * 1000 / _IDLE_STREAMS for role in ROLES}
    log = kept.values["kept_bytes.log"]
    return {
        "cpu_us_per_token": {role: round(us, 1) for role, us in each.items()},
        "cpu_us_per_request": {role: round(max(us, 0), -1) for role, us in extra.items()},
        "cpu_us_per_exchange": _exchange(),
        "desk": _desk(),
        "cpu_us_per_waiting_stream_s": {role: round(us, 1) for role, us in waiting.items()},
        "kib_per_stream": {role: round(idle.values[f"memory_kib.{role}"]) for role in ROLES},
        "redis_bytes_after_the_end": {
            "answer": round(kept.values["kept_bytes"] - log),
            "token": round(log / _ANSWER_TOKENS, 1),
            "tail_token": 60,
        },
    }


def _exchange() -> dict[str, float]:
    """Return the cost of an exchange with a further master, by role: that of a token with three masters, less that
    with one, for as many exchanges as the model counts."""
    _, one = _report("cluster", "500x20", "headrace_one_node")
    _, three = _report("cluster", "500x20", "headrace_three_nodes")
    more = {role: _us_of(three, role) - _us_of(one, role) for role in ROLES}
    gathered, tokens = load().gathered_s, _STREAMS * _TOKENS_PER_S
    by_gateway = beyond_first(_MASTERS, gathered.gateway, tokens) / tokens
    by_worker = beyond_first(_MASTERS, gathered.worker, tokens) / tokens
    count = {"gateway": by_gateway, "worker": by_worker, "redis": by_gateway + by_worker}
    return {role: round(max(more[role], 0) / count[role]) for role in ROLES}


def _us_of(summary: Summary, role: str) -> float:
    """Return the CPU of a token, of one role or of all that is neither gateway nor worker."""
    prefix = "cpu_token_us."
    found = {name.removeprefix(prefix): us for name, us in summary.values.items() if name.startswith(prefix)}
    if role != "redis":
        return found[role]
    return sum(us for name, us in found.items() if name not in ROLES)


def _desk() -> dict[str, float]:
    tables: dict[str, Any] = json.loads((FOLDER / "desk.json").read_text())["tables"]
    at_once = [float(row[2]) for row in tables["at_once"]["rows"] if row[0] == _LIMITS]
    (together,) = (row for row in tables["together"]["rows"] if row[0] == _LIMITS)
    hold = float(together[tables["together"]["rows"][0].index("hold")])
    return {**asdict(load().desk), "us_per_request": round(min(at_once)), "us_per_hold": round(hold)}


def _report(name: str, shape: str, target: str = "headrace") -> tuple[float, Summary]:
    """Return how long its answers of 500 x 20 last, ramp included, and the target's medians under the shape."""
    saved: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    seconds = float(saved["facts"]["an answer lasts"].removesuffix(" s")) + 2
    return seconds, summarize([Record(**record) for record in saved["records"]])[shape, target]


if __name__ == "__main__":
    main()
