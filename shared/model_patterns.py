"""Patterns of the models that an API key or a JWT allows.

``openai/*`` and ``*/llama*`` name a provider and its models; ``fast`` and ``gpt-*`` name models of any provider.
``*`` is any text, ``?`` any one character.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

MOST_PATTERNS: Final = 100
LONGEST_PATTERN: Final = 200


class ModelPatterns:
    """Allowed models; none if there is no pattern."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [_split(pattern) for pattern in patterns]

    def of_provider(self, provider: str) -> list[str]:
        """Return the patterns that the provider's own model names have to match."""
        return [model for allowed, model in self._patterns if _matches(provider, allowed)]

    def allow(self, provider: str, model: str) -> bool:
        return any(_matches(model, pattern) for pattern in self.of_provider(provider))


def matches_any(model: str, patterns: Iterable[str]) -> bool:
    """Return True if a pattern without a provider matches the model's name."""
    return any(_matches(model, pattern) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern.replace("[", "[[]"))  # brackets are part of a name


def _split(pattern: str) -> tuple[str, str]:
    """Return the patterns of the provider and of its model. A model's own name may have further slashes."""
    provider, slash, model = pattern.partition("/")
    return (provider, model) if slash else ("*", pattern)
