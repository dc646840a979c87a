"""What is told of where the time goes: spans, which say nothing and cost nothing unless OpenTelemetry is on.

``shared/otlp.py`` has those that are sent; it alone imports OpenTelemetry. Between processes a trace goes on as a
``traceparent`` (W3C), which a stream's state keeps. Attributes are ids, names, counts and codes: never a prompt or an
answer.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, Self

from shared.settings import Settings

Attributes = Mapping[str, str | int | float | bool | Sequence[str]]
Kind = Literal["server", "consumer", "client", "internal"]


class Span:
    """One that nobody hears of. ``traceparent`` and ``trace_id`` are '' for it."""

    traceparent: str = ""
    trace_id: str = ""

    def rename(self, name: str) -> None: ...

    def set(self, attributes: Attributes) -> None: ...

    def event(self, name: str, attributes: Attributes | None = None) -> None: ...

    def fail(self, kind: str) -> None:
        """It went wrong; ``kind`` becomes ``error.type``."""

    def end(self, at_ms: int | None = None) -> None:
        """Once; later ones do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


NO_SPAN: Final = Span()


class Tracing:
    """Off."""

    is_on: bool = False

    def start(
        self,
        name: str,
        kind: Kind = "internal",
        *,
        parent: str = "",
        attributes: Attributes | None = None,
        began_ms: int | None = None,
    ) -> Span:
        """``parent``: a ``traceparent``; '' or what is none begins a trace. To be ended by the caller."""
        return NO_SPAN

    def close(self, within_s: float = 3) -> None:
        """Send what is left, in a few seconds or not at all. Blocks."""


def tracing_of(settings: Settings, process: Literal["gateway", "worker"]) -> Tracing:
    """As the environment says. Raises :class:`SettingsError` where what it takes is not installed."""
    if not settings.has_traces:
        return Tracing()
    from shared.otlp import OtlpTracing  # noqa: PLC0415  optional, and slow to load

    return OtlpTracing(process)
