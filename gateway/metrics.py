"""The gateway's Prometheus metrics. Label sets are bounded: never an id, a model or a principal."""

from prometheus_client import Counter, Gauge

STREAMS_CREATED = Counter("headrace_streams_created_total", "Streams that were queued")
SUBSCRIPTIONS = Gauge("headrace_subscriptions", "Clients that read a stream now")
RESUMES = Counter("headrace_resumes_total", "Connections that came with a cursor", ["result"])
REFUSALS = Counter("headrace_refusals_total", "Requests that were refused for a limit or a full queue", ["code"])
QUEUE_DEPTH = Gauge("headrace_queue_depth", "Streams that wait for a worker, in all")
QUEUE_OLDEST = Gauge("headrace_queue_oldest_seconds", "How long the one that was made first has waited")
CANCELS = Counter("headrace_cancels_total", "Cancels that clients asked for")
