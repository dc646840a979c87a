"""Dates of models, as providers list them."""

from datetime import UTC, datetime
from typing import Any, Final

#: The last second that a date with a year of four digits can express.
_LATEST: Final = 253_402_300_799


def seconds_of(listed: Any) -> int:
    """Return Unix seconds of a number or an RFC 3339 text; 0 if it is neither."""
    if isinstance(listed, str):
        try:
            moment = datetime.fromisoformat(listed)
        except ValueError:
            return 0
        listed = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    is_number = isinstance(listed, int | float) and not isinstance(listed, bool)
    return int(listed) if is_number and 0 < listed <= _LATEST else 0
