"""Tracing that sends spans to an OpenTelemetry collector, with OTLP over HTTP.

The standard ``OTEL_*`` variables set the address and the sampling. The provider here is not the global one, with
which libraries would send their own spans: some contain whole URLs, and URLs contain tickets.
"""

import logging
import os
import secrets
import socket
import threading
from typing import Final

from shared.settings import SettingsError
from shared.tracing import Attributes, Kind, Span, Tracing

try:
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import Span as SentSpan
    from opentelemetry.trace import SpanKind, Status, StatusCode, format_trace_id, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise SettingsError(
        f"OTEL_EXPORTER_OTLP_ENDPOINT: traces need {error.name}, which is not installed; run pip install"
        " 'headrace[otel]' or unset it"
    ) from None

_KINDS: Final = {
    "server": SpanKind.SERVER,
    "consumer": SpanKind.CONSUMER,
    "client": SpanKind.CLIENT,
    "internal": SpanKind.INTERNAL,
}
_propagator: Final = TraceContextTextMapPropagator()


class _OtlpSpan(Span):
    def __init__(self, span: SentSpan) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, set_span_in_context(span, Context()))
        self.traceparent = carrier.get("traceparent", "")
        self.trace_id = format_trace_id(span.get_span_context().trace_id)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        self._span.add_event(name, attributes)

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self, at_ms: int | None = None) -> None:
        if self._span.is_recording():
            self._span.end(None if at_ms is None else at_ms * 1_000_000)


def _without_reason(record: logging.LogRecord) -> bool:
    """Reduce the exporter's message to the status: it repeats the collector's reason, which may be any text."""
    numbers = [value for value in (record.args or ()) if isinstance(value, int)]
    record.msg, record.args, record.exc_info = "trace export failed", (), None
    record.status = numbers[0] if numbers else None
    return True


class OtlpTracing(Tracing):
    """Tracing with its own exporter."""

    is_on = True

    def __init__(self, process: str) -> None:
        resource = Resource.create(
            {
                "service.name": os.environ.get("OTEL_SERVICE_NAME") or f"headrace-{process}",
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
            }
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(_without_reason)
        self._tracer = self._provider.get_tracer("headrace")

    def start(
        self,
        name: str,
        kind: Kind = "internal",
        *,
        parent: str = "",
        attributes: Attributes | None = None,
        began_ms: int | None = None,
    ) -> Span:
        # A new context each time, so that nothing is inherited from the current task.
        context = _propagator.extract({"traceparent": parent}, Context())
        began = None if began_ms is None else began_ms * 1_000_000
        return _OtlpSpan(
            self._tracer.start_span(name, context, _KINDS[kind], attributes=attributes, start_time=began)
        )

    def close(self, within_s: float = 3) -> None:
        # In a daemon thread: the exporter retries an unavailable collector for longer than a shutdown may take.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(within_s)
