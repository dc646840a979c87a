"""Convention of provider and load client: the pace in a model's name, and the form of a token.

    pace-50-2000     50 tokens a second, 2,000 of them, each in a send of its own
    flood-100000     as fast as the socket accepts, a send each; with -x64, 64 tokens in a send
    idle             one token, and then silence until the client closes

`-s40` at the end of any of them makes tokens 40 bytes large instead of 21.
"""

import re
from dataclasses import dataclass
from typing import Final

#: Seq, and CLOCK_MONOTONIC in microseconds when the provider sent it. The width is fixed, so that a reader that keeps
#: the last ``STAMP_BYTES - 1`` bytes finds every token once.
STAMP: Final = b"%06d:%013d "
STAMP_BYTES: Final = 21
FIND_STAMPS: Final = re.compile(rb"(\d{6}):(\d{13}) ")

_NAME: Final = re.compile(
    r"(?:pace-(?P<rate>[\d.]+)-(?P<paced>\d+)|flood-(?P<flood>\d+)(?:-x(?P<per_send>\d+))?|idle)(?:-s(?P<size>\d+))?"
)


@dataclass(frozen=True, slots=True)
class Pace:
    """Pace of an answer. ``per_s`` None: only the socket limits it. ``tokens`` None: one token, and no end. ``size``
    is in bytes."""

    per_s: float | None
    tokens: int | None
    per_send: int = 1
    size: int = STAMP_BYTES


def parse(model: str) -> Pace:
    """Raises :class:`ValueError` for a name of another form."""
    found = _NAME.fullmatch(model)
    if found is None:
        raise ValueError(f"model: {model!r} is not a pace; see bench/pace.py")
    size = max(STAMP_BYTES, int(found["size"] or 0))
    if found["rate"]:
        return Pace(per_s=float(found["rate"]), tokens=int(found["paced"]), size=size)
    if found["flood"]:
        return Pace(per_s=None, tokens=int(found["flood"]), per_send=int(found["per_send"] or 1), size=size)
    return Pace(per_s=None, tokens=None, size=size)


def paced(per_s: float, tokens: int) -> str:
    return f"pace-{per_s:g}-{tokens}"


def flood(tokens: int, per_send: int = 1) -> str:
    return f"flood-{tokens}" + (f"-x{per_send}" if per_send > 1 else "")


IDLE: Final = "idle"
