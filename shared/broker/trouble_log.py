"""Log lines about a Redis that this process cannot use: the first at once, then with rising pauses, one at the end.

One log serves the whole process, because many tasks meet the same trouble at once.
"""

import logging
import time
from typing import Final

from shared.errors import BrokerUnavailable

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 60.0


class _Pace:
    """Decides which occurrences are logged. The pauses are short again after a while without any."""

    def __init__(self) -> None:
        self._pause_s = _FIRST_PAUSE_S
        self._logged_at = float("-inf")
        self._seen_at = float("-inf")

    def is_due(self) -> bool:
        now = time.monotonic()
        if now - self._seen_at > 2 * _LONGEST_PAUSE_S:
            self._pause_s, self._logged_at = _FIRST_PAUSE_S, float("-inf")
        self._seen_at = now
        if now - self._logged_at < self._pause_s:
            return False
        if self._logged_at != float("-inf"):
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._logged_at = now
        return True


class TroubleLog:
    """Current trouble of this process with Redis. ``current`` is None while Redis is usable."""

    def __init__(self) -> None:
        self.current: BrokerUnavailable | None = None
        self._since = 0.0
        self._logged: BrokerUnavailable | None = None  # since the last recovery
        self._paces: dict[str, _Pace] = {}

    def report(self, error: BrokerUnavailable) -> None:
        """Log that Redis cannot be used."""
        if self.current is None:
            self._since = time.monotonic()
        self.current = error
        if self._pace(error.reason).is_due():
            self._logged = error
            logger.warning("Redis unusable", extra=_fields(error))

    def refused(self, error: BrokerUnavailable, what: str) -> None:
        """Log that Redis refused one command or script, for a reason that does not concern the others."""
        if self._pace(f"{error.reason} {what}").is_due():
            logger.error("Redis refused a command", extra={"command": what, **_fields(error)})

    def recovered(self) -> None:
        """Log that Redis can be used again, if it could not."""
        self.current = None
        if self._logged is not None:
            seconds = round(time.monotonic() - self._since, 1)
            logger.warning("Redis usable again", extra={"reason": self._logged.reason, "after_s": seconds})
            self._logged = None

    def _pace(self, name: str) -> _Pace:
        return self._paces.setdefault(name, _Pace())


def _fields(error: BrokerUnavailable) -> dict[str, str]:
    return {"reason": error.reason, "code": error.code, "detail": error.detail}


#: The log of this process.
TROUBLE: Final = TroubleLog()
