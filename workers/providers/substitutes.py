"""Names and ids in the form that a provider accepts.

A name that the provider would refuse is sent as a substitute. It is derived from the name, so it is the same in every
request of a conversation and does not break the provider's prompt cache.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Final

_NARROW: Final = re.compile(r"[^A-Za-z0-9_-]")


class Substitutes:
    """Substitutes of one request. ``pattern``: what the provider accepts. ``make``: returns the substitute of another
    name; its result must match the pattern."""

    def __init__(self, pattern: str, make: Callable[[str], str]) -> None:
        self._accepted = re.compile(pattern)
        self._make = make
        self._originals: dict[str, str] = {}

    def of(self, name: str) -> str:
        """Return the name, or its substitute."""
        if self._accepted.fullmatch(name):
            return name
        substitute = self._make(name)
        self._originals[substitute] = name
        return substitute

    def original(self, name: str) -> str:
        """Return the name that was sent as ``name``."""
        return self._originals.get(name, name)

    def all_of(self, names: Iterable[str]) -> None:
        """Remember the substitutes of ``names``, so that :meth:`original` finds them."""
        for name in names:
            self.of(name)


def tool_names() -> Substitutes:
    """Return the substitutes of tools' names for OpenAI and its followers."""
    return Substitutes(r"[A-Za-z0-9_-]{1,64}", lambda name: f"{_NARROW.sub('_', name)[:55]}_{_digest(name, 8)}")


def anthropic_tool_names() -> Substitutes:
    """Return the substitutes of tools' names for Anthropic."""
    return Substitutes(r"[A-Za-z0-9_-]{1,128}", lambda name: f"{_NARROW.sub('_', name)[:119]}_{_digest(name, 8)}")


def anthropic_call_ids() -> Substitutes:
    """Return the substitutes of calls' ids for Anthropic."""
    return Substitutes(r"[A-Za-z0-9_-]+", lambda id: f"toolu_{_digest(id, 24)}")


def mistral_call_ids() -> Substitutes:
    """Return the substitutes of calls' ids for Mistral: nine letters and digits."""
    return Substitutes(r"[A-Za-z0-9]{9}", lambda id: _digest(id, 9))


def short_call_ids() -> Substitutes:
    """Return the substitutes of calls' ids for OpenAI: at most 40 characters."""
    return Substitutes(r"(?s:.{0,40})", lambda id: f"call_{_digest(id, 24)}")


def long_call_ids() -> Substitutes:
    """Return the substitutes of calls' ids for Responses, which limits their length."""
    return Substitutes(r"[\s\S]{1,64}", lambda id: f"call_{_digest(id, 24)}")


def _digest(text: str, length: int) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
