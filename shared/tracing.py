"""Interface of tracing; the classes here do nothing and cost nothing.

``shared/otlp.py`` implements them with OpenTelemetry, and ``shared/tracing_setup.py`` chooses. Between processes a
trace continues through a ``traceparent`` (W3C) in the stream's state. Attributes are ids, names, counts and codes,
never a prompt or an answer.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, Self

Attributes = Mapping[str, str | int | float | bool | Sequence[str]]
Kind = Literal["server", "consumer", "client", "internal"]


class Span:
    """A span that is not sent. Its ``traceparent`` and ``trace_id`` are empty."""

    traceparent: str = ""
    trace_id: str = ""

    def rename(self, name: str) -> None: ...

    def set(self, attributes: Attributes) -> None: ...

    def event(self, name: str, attributes: Attributes | None = None) -> None: ...

    def fail(self, kind: str) -> None:
        """Mark the span as failed; ``kind`` becomes ``error.type``."""

    def end(self, at_ms: int | None = None) -> None:
        """End the span. Further calls do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


NO_SPAN: Final = Span()


class Tracing:
    """Disabled tracing."""

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
        """Start a span, which the caller must end. An empty or invalid ``parent`` (traceparent) starts a trace."""
        return NO_SPAN

    def close(self, within_s: float = 3) -> None:
        """Send the remaining spans within ``within_s``, or drop them. Blocks."""
