"""Response options, parsed from a dialect's request."""

from dataclasses import dataclass
from typing import Any

from shared.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """``ignored``: names of accepted fields that have no effect."""

    stream: bool
    ignored: tuple[str, ...] = ()
    include_usage: bool = False


def flag(raw: Any, name: str, within: str = "") -> bool:
    """Return a boolean field, False by default. ``within``: path of ``raw`` in the request, with a final dot. Raises
    :class:`InvalidRequest`."""
    value = raw.get(name, False) if isinstance(raw, dict) else None
    if not isinstance(value, bool):
        raise InvalidRequest(f"{within}{name}: must be true or false")
    return value
