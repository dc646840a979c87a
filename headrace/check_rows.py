"""One result of ``headrace check``."""

from dataclasses import dataclass
from typing import Final

OK: Final = "ok"
#: Worth a look; it does not make the check fail.
NOTE: Final = "note"
WRONG: Final = "WRONG"


@dataclass(frozen=True, slots=True)
class Row:
    """``name``: of the provider or other thing. ``key``: place and end of a key. ``detail``: the problem and its
    remedy, if there is one."""

    state: str
    name: str
    key: str
    detail: str
