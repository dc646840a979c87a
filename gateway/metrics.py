"""The gateway's Prometheus metrics. Label sets are bounded: never an id, a model or a principal."""

from prometheus_client import Counter, Gauge

STREAMS_CREATED = Counter("headrace_streams_created_total", "Streams that were queued")
SUBSCRIPTIONS = Gauge("headrace_subscriptions", "Clients that read a stream now")
RESUMES = Counter("headrace_resumes_total", "Connections that came with a cursor", ["result"])
CANCELS = Counter("headrace_cancels_total", "Cancels that clients asked for")
