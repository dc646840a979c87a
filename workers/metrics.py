"""Prometheus metrics of a worker, served on ``HEADRACE_METRICS_PORT``. Label sets are bounded."""

from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from shared.broker.replies import Code, WriteReply
from shared.errors import BrokerUnavailable
from shared.metrics import registry
from shared.protocol.lineage import NO_LINEAGE, Lineage

_REPLIES = Counter("headrace_append_answers_total", "Replies of the scripts that write streams", ["code"])
#: Looked up once: every append has a reply.
_REPLIES_BY_CODE = {code: _REPLIES.labels(code) for code in Code}
APPEND = Histogram(
    "headrace_append_seconds",
    "Round trip of one pipeline of appends, for all streams of a worker",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
TRIMMED = Counter("headrace_tail_trimmed_events_total", "Events in the log that have left the tail")
TAKEOVERS = Counter("headrace_takeovers_total", "Streams claimed after another worker had started them")
RESUMED_ANSWERS = Counter(
    "headrace_resumed_answers_total", "Answers stored at their provider that another worker went on with", ["result"]
)
RESTARTED_ANSWERS = Counter(
    "headrace_restarted_answers_total", "Answers that another worker began anew after events of them could be read"
)
RESTORES = Counter("headrace_restores_total", "Streams rewritten after Redis had lost them")
ENDINGS = Counter("headrace_endings_total", "Streams ended by this worker", ["finish_reason", "reason"])
for _reason in ("internal_error", "worker_lost"):
    ENDINGS.labels("error", _reason)
TOKENS_SAVED = Counter(
    "headrace_tokens_saved_total", "Tokens of max_tokens not generated because the answer was cancelled"
)
STREAMS = Gauge("headrace_worker_streams", "Streams this worker holds", multiprocess_mode="livesum")
SLOTS = Gauge("headrace_worker_slots", "Streams this worker can hold at once", multiprocess_mode="livesum")
RETRIES = Counter("headrace_provider_retries_total", "Retries of a request at the same provider")
FALLBACKS = Counter("headrace_fallbacks_total", "Requests sent to another target or to a fallback")
CONTINUATIONS = Counter(
    "headrace_continuations_total", "Answers that went on with this provider after one broke off", ["provider"]
)
UNKNOWN_FINISH_REASONS = Counter(
    "headrace_unknown_finish_reasons_total", "Answers with a finish reason that is not known", ["provider"]
)
PROVIDER_FAILURES = Counter("headrace_provider_failures_total", "Failed calls of a provider", ["provider", "code"])
_BREAKER_OPEN = Gauge(
    "headrace_breaker_open",
    "1 while the circuit breaker of the target is open",
    ["provider", "model"],
    multiprocess_mode="livemax",
)
_OTHER = "other"
_MOST_BREAKERS = 100
_breakers = set[tuple[str, str]]()
BREAKER_REFUSALS = Counter(
    "headrace_breaker_refusals_total", "Requests refused by an open circuit breaker", ["provider"]
)
WEBHOOKS = Counter("headrace_webhooks_total", "Tries to deliver a webhook, by their outcome", ["outcome"])
WEBHOOK = Histogram(
    "headrace_webhook_seconds",
    "Time of one try to deliver a webhook",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30),
)
ARCHIVED = Counter("headrace_archived_streams_total", "Streams that this worker has written to the archive")
ARCHIVE_FAILURES = Counter(
    "headrace_archive_failures_total",
    "Failed tries to write to the archive, and streams that could not be read for it",
    ["reason"],
)
ARCHIVE_WAITING = Gauge(
    "headrace_archive_waiting_streams", "Streams that wait for the archive", multiprocess_mode="livemax"
)
ARCHIVE_LAG = Gauge(
    "headrace_archive_lag_seconds",
    "Time since the end of the oldest stream that this worker has taken for the archive",
    multiprocess_mode="livemax",
)
for _reason in ("unavailable", "refused", "unreadable"):
    ARCHIVE_FAILURES.labels(_reason)


def count_replies(replies: Sequence[WriteReply | BrokerUnavailable]) -> None:
    """Count replies by their codes, each code once: a pipeline has many replies, and nearly all are OK."""
    codes = [reply.code for reply in replies if isinstance(reply, WriteReply)]
    for code in set(codes):
        _REPLIES_BY_CODE[code].inc(codes.count(code))


def count_restart(readable: int, lineage: Lineage) -> None:
    """Count an answer that did not continue the events that its readers had. ``readable``: number of those."""
    if readable and lineage == NO_LINEAGE:
        RESTARTED_ANSWERS.inc()


def label_provider(provider: str) -> None:
    """Export the metrics of a provider as 0 from the start."""
    BREAKER_REFUSALS.labels(provider)
    CONTINUATIONS.labels(provider)
    _BREAKER_OPEN.labels(provider, _OTHER)


def breaker_gauge(provider: str, model: str) -> Gauge:
    """Return the gauge of a target's breaker. All after the first hundred have the label other."""
    if (provider, model) not in _breakers:
        if len(_breakers) >= _MOST_BREAKERS:
            return _BREAKER_OPEN.labels(provider, _OTHER)
        _breakers.add((provider, model))
    return _BREAKER_OPEN.labels(provider, model)


def serve(host: str, port: int) -> None:
    """Start the metrics server. Raises OSError if the address is not available."""
    start_http_server(port, host, registry())
