"""Judges the difference of two clocks."""

from typing import Final

from headrace.doctor.findings import Finding, note, ok, wrong

_NOTED_S: Final = 1.0
#: Leases and tickets last for seconds.
_WRONG_S: Final = 5.0


def clock(check: str, name: str, offset_s: float, margin_s: float = 0.0) -> Finding:
    """Judge a clock by the seconds that it is ahead of this machine's. ``margin_s``: possible error of that."""
    least_s = max(0.0, abs(offset_s) - margin_s)
    if least_s < _NOTED_S:
        return ok(check, name, "its clock agrees with this machine's within a second or so")
    direction = "ahead of" if offset_s > 0 else "behind"
    seen = f"its clock is {abs(offset_s):.1f} s {direction} this machine's"
    advice = "leases, tickets and JWT depend on clocks; run NTP on all machines"
    return (wrong if least_s >= _WRONG_S else note)(check, name, f"{seen}: {advice}")
