"""The gateway's Prometheus metrics. Label sets are bounded: never an id, a model or a principal."""

from prometheus_client import Counter, Gauge, Histogram

STREAMS_CREATED = Counter("headrace_streams_created_total", "Streams that were queued")
REQUESTS = Counter(
    "headrace_requests_total",
    "Requests that are over, without those for probes, metrics and pages",
    ["kind", "outcome"],
)
for _kind in ("create", "resume", "other"):
    for _outcome in ("ok", "refused", "cut", "failed"):
        REQUESTS.labels(_kind, _outcome)
STREAMS = Gauge("headrace_gateway_streams", "Streams that this gateway reads now", multiprocess_mode="livesum")
SUBSCRIPTIONS = Gauge("headrace_subscriptions", "Clients that read a stream now", multiprocess_mode="livesum")
RESUMES = Counter("headrace_resumes_total", "Connections that resumed with a cursor", ["result"])
REFUSALS = Counter("headrace_refusals_total", "Requests refused by a limit or a full queue", ["code"])
BODY_MEMORY = Gauge(
    "headrace_body_memory_bytes",
    "Memory taken by request bodies that are not stored yet",
    multiprocess_mode="livesum",
)
ARCHIVE_READS = Counter(
    "headrace_archive_reads_total", "Reads of the archive, for streams that Redis has no more", ["result"]
)
_OF_BUDGET = ["period", "kind", "currency"]
BUDGET_LIMIT = Gauge(
    "headrace_budget_limit", "Budget of the server, of money or of tokens", _OF_BUDGET, multiprocess_mode="livemax"
)
BUDGET_USED = Gauge(
    "headrace_budget_used", "What is used of it in the period of now", _OF_BUDGET, multiprocess_mode="livemax"
)
BUDGET_RESERVED = Gauge(
    "headrace_budget_reserved", "What streams in progress reserve of it", _OF_BUDGET, multiprocess_mode="livemax"
)
BUDGET_WARNINGS = Counter(
    "headrace_budget_warnings_total",
    "Budgets of which 80 % were spent, once in each period",
    ["owner", "period", "kind"],
)
CANCELS = Counter("headrace_cancel_requests_total", "Cancel requests by clients")
TAIL_HOLES = Counter("headrace_tail_holes_total", "Tails trimmed before this gateway had read them")
DELIVERY = Histogram(
    "headrace_delivery_seconds",
    "Time from an append's notification until a reader's connection has it; one sample a second",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
#: Values read from Redis; every gateway exports the same ones.
QUEUE_DEPTH = Gauge(
    "headrace_queue_depth", "Streams that wait for a worker, system-wide", multiprocess_mode="livemax"
)
QUEUE_BATCH = Gauge(
    "headrace_queue_batch", "Batch streams among those that wait, system-wide", multiprocess_mode="livemax"
)
QUEUE_OLDEST = Gauge(
    "headrace_queue_oldest_seconds", "Waiting time of the oldest queued stream", multiprocess_mode="livemax"
)
REDIS_UP = Gauge("headrace_redis_up", "1 while Redis answers this gateway", multiprocess_mode="livemin")
ACCEPTING = Gauge("headrace_accepting", "1 while a worker runs that takes new requests", multiprocess_mode="livemin")
REDIS_MEMORY = Gauge("headrace_redis_memory_bytes", "Memory that Redis uses", multiprocess_mode="livemax")
REDIS_MEMORY_LIMIT = Gauge(
    "headrace_redis_memory_limit_bytes", "Memory that Redis may use; 0 = unlimited", multiprocess_mode="livemax"
)
LIVE_STREAMS = Gauge("headrace_live_streams", "Streams that wait or run, system-wide", multiprocess_mode="livemax")
WEBHOOKS_WAITING = Gauge(
    "headrace_webhooks_waiting", "Webhooks that wait for their next try, system-wide", multiprocess_mode="livemax"
)
WEBHOOKS_GIVEN_UP = Gauge(
    "headrace_webhooks_given_up",
    "Webhooks of kept streams that were given up, system-wide",
    multiprocess_mode="livemax",
)
STREAM_BYTES = Gauge(
    "headrace_redis_stream_bytes",
    "Size of a stream's state, log and tail in Redis: mean of a sample of live streams",
    multiprocess_mode="livemax",
)
