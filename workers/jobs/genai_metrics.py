"""Metrics and span attributes with the names, labels and buckets of OpenTelemetry's conventions for generative AI.

``gen_ai_server_*`` measure an answer from the view of Headrace's client: from its request, with the wait in the
queue. ``gen_ai_client_*`` measure one call of a provider. A stream is counted at its end, by the process that
ended it.
"""

from functools import lru_cache
from typing import Final

from msgspec import UnsetType
from prometheus_client import Counter, Histogram

from shared.protocol.events import PartialUsage, Usage

_NAMES: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_EACH: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_TOKENS: Final = tuple(4**power for power in range(14))

FIRST_TOKEN = Histogram(
    "gen_ai_server_time_to_first_token_seconds", "Time from a request to its first token", _NAMES, buckets=_FIRST
)
EACH_TOKEN = Histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "Time between output tokens, after the first",
    _NAMES,
    buckets=_EACH,
)
REQUEST = Histogram(
    "gen_ai_server_request_duration_seconds",
    "Time from a request to the end of its answer",
    [*_NAMES, "error_type"],
    buckets=_SECONDS,
)
OPERATION = Histogram(
    "gen_ai_client_operation_duration_seconds",
    "Duration of one call of a provider",
    [*_NAMES, "error_type"],
    buckets=_SECONDS,
)
TOKENS = Histogram(
    "gen_ai_client_token_usage", "Tokens of one call of a provider", [*_NAMES, "gen_ai_token_type"], buckets=_TOKENS
)
_MODALITY: Final = "unknown"  # no provider of ours counts text, images and audio apart
_PART_LABELS: Final = (*_NAMES, "gen_ai_token_modality")
CACHE_READ_TOKENS = Counter(
    "gen_ai_client_inference_usage_cache_read_input_tokens",
    "Input tokens that providers read from their caches",
    _PART_LABELS,
)
CACHE_WRITE_TOKENS = Counter(
    "gen_ai_client_inference_usage_cache_write_input_tokens",
    "Input tokens that providers wrote to their caches",
    _PART_LABELS,
)
REASONING_TOKENS = Counter(
    "gen_ai_client_inference_usage_reasoning_output_tokens", "Output tokens of reasoning", _PART_LABELS
)
UNLABELLED_MODELS = Counter(
    "headrace_untold_models_total", "Answers counted under the label other instead of their model"
)

#: Popular models are among the first that answer. Invented names do not answer, so they fill no labels.
_MAX_MODELS: Final = 100
_OTHER: Final = "other"

#: Names of the counts, as attributes of spans and fields of log lines.
INPUT: Final = "gen_ai.usage.input_tokens"
OUTPUT: Final = "gen_ai.usage.output_tokens"
_CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
_CACHE_WRITE: Final = "gen_ai.usage.cache_write.input_tokens"
_CACHE_CREATION: Final = "gen_ai.usage.cache_creation.input_tokens"  # its earlier name, which many still read
_REASONING: Final = "gen_ai.usage.reasoning.output_tokens"
_PARTS: Final = {_CACHE_READ: CACHE_READ_TOKENS, _CACHE_WRITE: CACHE_WRITE_TOKENS, _REASONING: REASONING_TOKENS}
_models: set[tuple[str, str]] = set()


def labels_of(provider: str, model: str, *, answered: bool) -> tuple[str, str, str]:
    """Return the label values. A model has its own label once it has ``answered``, if it is among the first
    hundred."""
    if (provider, model) not in _models:
        if not answered or len(_models) >= _MAX_MODELS:
            UNLABELLED_MODELS.inc()
            return "chat", provider, _OTHER
        _models.add((provider, model))
    return "chat", provider, model


def usage_attributes(usage: Usage | PartialUsage) -> dict[str, int]:
    """Return the counts that the provider reported, by their names."""
    counts = {
        INPUT: usage.input_tokens,
        OUTPUT: usage.output_tokens,
        _CACHE_READ: usage.cached_tokens,
        _CACHE_WRITE: usage.cache_write_tokens,
        _CACHE_CREATION: usage.cache_write_tokens,
        _REASONING: usage.reasoning_tokens,
    }
    return {name: count for name, count in counts.items() if not isinstance(count, UnsetType)}


def called(
    provider: str, model: str, seconds: float, *, usage: Usage | PartialUsage | None = None, error: str = ""
) -> None:
    """Observe one finished call of a provider."""
    labels = labels_of(provider, model, answered=not error)
    _with(OPERATION, *labels, error).observe(seconds)
    if usage is not None:
        _observe_usage(labels, usage_attributes(usage))


def _observe_usage(labels: tuple[str, str, str], counts: dict[str, int]) -> None:
    for name, kind in ((INPUT, "input"), (OUTPUT, "output")):
        if name in counts:
            _with(TOKENS, *labels, kind).observe(counts[name])
    for name, counter in _PARTS.items():
        if name in counts:
            counter.labels(*labels, _MODALITY).inc(counts[name])


def ended(
    provider: str, model: str, seconds: float, *, first_s: float | None, output_tokens: int | None, error: str
) -> None:
    """Observe one finished stream. ``first_s``: seconds from its request to its first token."""
    labels = labels_of(provider, model, answered=not error)
    _with(REQUEST, *labels, error).observe(seconds)
    if first_s is None:
        return
    _with(FIRST_TOKEN, *labels).observe(first_s)
    if output_tokens is not None and output_tokens > 1:
        _with(EACH_TOKEN, *labels).observe((seconds - first_s) / (output_tokens - 1))


@lru_cache(maxsize=4096)
def _with(histogram: Histogram, *labels: str) -> Histogram:
    """Return the histogram's part with these labels: finding it costs as much as observing."""
    return histogram.labels(*labels)
