"""Writes the measured constants of the capacity model into ``capacity.json``: ``python -m bench.capacity_update``.

They come from the reports ``targets`` and ``headrace`` of ``bench/results``, see ``make bench-reports``.
"""

import json
import re
from typing import Any, Final

from bench.capacity_constants import FILE
from bench.report import FOLDER
from bench.results import Record, Summary, summarize

ROLES: Final = ("gateway", "worker", "redis")
_ANSWER_TOKENS: Final = 500
_IDLE_STREAMS: Final = 5000
_TOKENS_PER_S: Final = 20


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
        "cpu_us_per_waiting_stream_s": {role: round(us, 1) for role, us in waiting.items()},
        "kib_per_stream": {role: round(idle.values[f"memory_kib.{role}"]) for role in ROLES},
        "redis_bytes_after_the_end": {
            "answer": round(kept.values["kept_bytes"] - log),
            "token": round(log / _ANSWER_TOKENS, 1),
            "tail_token": 60,
        },
    }


def _report(name: str, shape: str) -> tuple[float, Summary]:
    """Return how long its answers of 500 x 20 last, ramp included, and Headrace's medians under the shape."""
    saved: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    seconds = float(saved["facts"]["an answer lasts"].removesuffix(" s")) + 2
    return seconds, summarize([Record(**record) for record in saved["records"]])[shape, "headrace"]


if __name__ == "__main__":
    main()
