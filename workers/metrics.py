"""A worker's Prometheus metrics, served where ``HEADRACE_METRICS_PORT`` says. Label sets are bounded."""

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from shared.broker.replies import Code
from shared.metrics import registry

_ANSWERS = Counter("headrace_append_answers_total", "Answers of the scripts that write streams", ["code"])
#: Looked up once: an answer comes with every append.
APPEND_ANSWERS = {code: _ANSWERS.labels(code) for code in Code}
APPEND = Histogram(
    "headrace_append_seconds",
    "One pipeline of appends, all streams of a worker together, from leaving to Redis' answer",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
TRIMMED = Counter("headrace_tail_trimmed_events_total", "Events that are in the log and no more in the tail")
TAKEOVERS = Counter("headrace_takeovers_total", "Streams claimed that another worker had begun")
RESTORES = Counter("headrace_restores_total", "Streams written again into a Redis that had lost them")
ENDINGS = Counter("headrace_endings_total", "Streams that ended here", ["finish_reason", "reason"])
TOKENS_SAVED = Counter("headrace_tokens_saved_total", "Tokens that cancelled answers left of their max_tokens")
STREAMS = Gauge("headrace_worker_streams", "Streams this worker holds", multiprocess_mode="livesum")
SLOTS = Gauge("headrace_worker_slots", "Streams this worker may hold at once", multiprocess_mode="livesum")
RETRIES = Counter("headrace_provider_retries_total", "Requests put to the same provider again")
FALLBACKS = Counter("headrace_fallbacks_total", "Requests put to another model, for their own failed")
PROVIDER_FAILURES = Counter("headrace_provider_failures_total", "Answers that failed", ["provider", "code"])
BREAKER_OPEN = Gauge(
    "headrace_breaker_open",
    "1 while all workers leave the provider alone",
    ["provider"],
    multiprocess_mode="livemax",
)
BREAKER_REFUSALS = Counter("headrace_breaker_refusals_total", "Requests that were not put to it", ["provider"])


def serve(host: str, port: int) -> None:
    """Raises OSError where the address cannot be had."""
    start_http_server(port, host, registry())
