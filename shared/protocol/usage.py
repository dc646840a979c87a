"""Estimates the token counts of an answer that its provider did not report."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, structs

from shared.protocol.events import PartialUsage, Usage

_CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English


@dataclass(frozen=True, slots=True)
class Estimate:
    """The facts about a request from which usage is estimated. ``max_tokens`` is 0 if the request set none."""

    prompt_characters: int
    max_tokens: int

    @classmethod
    def of(cls, fields: Mapping[str, bytes]) -> "Estimate":
        """Read the facts from a stream's state."""
        return cls(int(fields.get("prompt_characters", b"0")), int(fields.get("max_tokens", b"0")))

    @property
    def prompt_tokens(self) -> int:
        return _tokens(self.prompt_characters)

    def usage(self, deltas: int, characters: int, *, cancelled: bool = False, prefixes: Iterable[int] = ()) -> Usage:
        """Estimate the usage of an answer of so many deltas and characters: a delta is at least one token.
        ``prefixes``: characters of the answer that further calls got besides the request."""
        repeated = sum(_tokens(self.prompt_characters + prefix) for prefix in prefixes)
        output = max(deltas, _tokens(characters))
        saved = max(0, self.max_tokens - output) if cancelled and self.max_tokens else UNSET
        return Usage(self.prompt_tokens + repeated, output, estimated=True, tokens_saved=saved)

    def completed(self, counted: PartialUsage, deltas: int, characters: int, *, cancelled: bool = False) -> Usage:
        """Estimate the side that the provider did not count, and keep the rest. A side is never less than its parts
        that were counted."""
        estimated = self.usage(deltas, characters, cancelled=cancelled)
        cached = (counted.cached_tokens or 0) + (counted.cache_write_tokens or 0)
        return Usage(
            _counted_or(counted.input_tokens, max(estimated.input_tokens, cached)),
            _counted_or(counted.output_tokens, max(estimated.output_tokens, counted.reasoning_tokens or 0)),
            estimated=True,
            tokens_saved=estimated.tokens_saved,
            cached_tokens=counted.cached_tokens,
            cache_write_tokens=counted.cache_write_tokens,
            reasoning_tokens=counted.reasoning_tokens,
        )


def _counted_or(count: int | UnsetType, estimate: int) -> int:
    return estimate if isinstance(count, UnsetType) else count


def _tokens(characters: int) -> int:
    return math.ceil(characters / _CHARACTERS_PER_TOKEN)


def encode_usage(usage: Usage | None) -> bytes:
    """Return the state's field: the values without their names, since Redis keeps a state of short values compactly.
    null: not counted."""
    values = structs.astuple(usage) if usage is not None else None
    return msgspec.json.encode(values and [None if value is UNSET else value for value in values])


def decode_usage(stored: str | None) -> dict[str, Any] | None:
    """Return the members of the usage that :func:`encode_usage` encoded."""
    values = msgspec.json.decode(stored or "null")
    names = Usage.__struct_fields__
    return values and {name: value for name, value in zip(names, values, strict=True) if value is not None}
