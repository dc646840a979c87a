"""What a provider is: one method that turns a request into canonical deltas.

A provider yields any number of :class:`TextDelta` and :class:`ReasoningDelta`, in lists of what came together, and
then exactly one :class:`Finished`. Ending without it means that the upstream broke off; the caller turns that into
``upstream_truncated``. Everything that goes wrong is raised as :class:`shared.errors.ProviderError`; no SDK's own
exception leaves this package. Closing the iterator closes the provider's connection.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from shared.protocol.events import Usage
from shared.schemas import ChatRequest

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class TextDelta(msgspec.Struct, frozen=True):
    text: str


class ReasoningDelta(msgspec.Struct, frozen=True):
    text: str


Delta = TextDelta | ReasoningDelta


@dataclass(frozen=True, slots=True)
class Finished:
    """``usage`` is None where the provider did not say; the caller then estimates."""

    reason: FinishReason
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Offer:
    """The models a provider can be asked for. ``open`` means that any other name is passed on too, because the
    provider could not be asked for a list."""

    models: tuple[str, ...]
    open: bool = False


class Provider(Protocol):
    name: str

    async def offer(self) -> Offer:
        """Ask the provider what it has. Never raises: a provider that cannot say is ``open``."""
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Finished, None]:
        """An async generator over one answer; no list is empty. ``request.model`` is the provider's own name."""
        ...

    async def aclose(self) -> None:
        """Close the client and its connections."""
        ...
