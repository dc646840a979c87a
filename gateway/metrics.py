"""The gateway's Prometheus metrics. Label sets are bounded: never an id, a model or a principal."""

from prometheus_client import Counter, Gauge, Histogram

STREAMS_CREATED = Counter("headrace_streams_created_total", "Streams that were queued")
STREAMS = Gauge("headrace_gateway_streams", "Streams that are read here now", multiprocess_mode="livesum")
SUBSCRIPTIONS = Gauge("headrace_subscriptions", "Clients that read a stream now", multiprocess_mode="livesum")
RESUMES = Counter("headrace_resumes_total", "Connections that came with a cursor", ["result"])
REFUSALS = Counter("headrace_refusals_total", "Requests that were refused for a limit or a full queue", ["code"])
CANCELS = Counter("headrace_cancel_requests_total", "Cancels that clients asked for")
TAIL_HOLES = Counter("headrace_tail_holes_total", "Tails that were trimmed before this gateway had read them")
DELIVERY = Histogram(
    "headrace_delivery_seconds",
    "From hearing of an append until a reader's connection has it; one of each second",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
#: What Redis says. Every gateway tells it, and all tell the same.
QUEUE_DEPTH = Gauge("headrace_queue_depth", "Streams that wait for a worker, in all", multiprocess_mode="livemax")
QUEUE_OLDEST = Gauge(
    "headrace_queue_oldest_seconds", "How long the one that was made first has waited", multiprocess_mode="livemax"
)
REDIS_UP = Gauge("headrace_redis_up", "1 while Redis answers this gateway", multiprocess_mode="livemin")
REDIS_MEMORY = Gauge("headrace_redis_memory_bytes", "That Redis uses", multiprocess_mode="livemax")
REDIS_MEMORY_LIMIT = Gauge(
    "headrace_redis_memory_limit_bytes", "That Redis may use; 0 for any", multiprocess_mode="livemax"
)
LIVE_STREAMS = Gauge("headrace_live_streams", "Streams that wait or run, in all", multiprocess_mode="livemax")
STREAM_BYTES = Gauge(
    "headrace_redis_stream_bytes",
    "State, log and tail of a stream in Redis: the mean of some that live",
    multiprocess_mode="livemax",
)
