"""How an answer is to be told, as far as a dialect's request says so."""

from dataclasses import dataclass
from typing import Any

from shared.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """``ignored``: fields that were passed over."""

    stream: bool
    ignored: tuple[str, ...] = ()
    include_usage: bool = False


def flag(said: Any, name: str, within: str = "") -> bool:
    """False where nothing is said. Raises :class:`InvalidRequest`."""
    value = said.get(name, False) if isinstance(said, dict) else None
    if not isinstance(value, bool):
        raise InvalidRequest(f"{within}{name}: must be true or false")
    return value
