"""Response bodies of the JSON routes. The handlers' return types are the description's schemas, so neither drifts.

Values from a fixed list are plain strings here and an enum in the schema alone: a value from a newer worker must not
fail the response.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from shared.protocol.lifecycle import STATUS_AFTER, Status

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
StatusWord = Annotated[str, Field(json_schema_extra={"enum": [*Status]})]
FinishReason = Annotated[str, Field(json_schema_extra={"enum": [*STATUS_AFTER]})]


class Failure(TypedDict):
    """One error. ``code`` is stable and for machines, ``message`` is for people. ``retryable``: the same request may
    succeed later."""

    code: str
    message: str
    retryable: bool


class Refusal(Failure):
    """``status_url``: path of the answer of a stream that can no longer be streamed. ``stream_id`` and
    ``stream_url``: of the answer for which a chat is busy."""

    status_url: NotRequired[str]
    stream_id: NotRequired[str]
    stream_url: NotRequired[str]


class StreamFailure(Failure):
    """The error of a failed answer. ``provider_code`` and ``param``: the provider's own error code, if it is about
    the request, and the field that it names."""

    provider_code: NotRequired[str]
    param: NotRequired[str]


class ErrorBody(TypedDict):
    """The body of every error."""

    error: Refusal


class Connection(TypedDict):
    """A request as the gateway has received it, through all proxies in between. ``headers``: which of
    ``authorization``, ``last-event-id``, ``idempotency-key`` and ``via`` have arrived. ``forwarded``: whether the
    client's address comes from ``X-Forwarded-For``. ``heartbeat_s`` and ``max_body_bytes``: settings that proxies
    must agree with. ``at``: the gateway's clock."""

    version: str
    at: Moment
    http_version: str
    scheme: str
    headers: list[str]
    forwarded: Literal["used", "ignored", "absent"]
    heartbeat_s: float
    max_body_bytes: int


class Accepted(TypedDict):
    """The URLs of a new stream. ``stream_url`` contains a ticket, so that an ``EventSource`` needs no header; it is
    valid until ``expires_at``. ``history``: ``added`` if the earlier turns of the chat were added to the messages,
    ``given`` if the messages have them; null without a ``chat_id``, and if there are none."""

    stream_id: str
    chat_id: str | None
    history: Annotated[str | None, Field(json_schema_extra={"enum": ["added", "given", None]})]
    stream_url: str
    status_url: str
    expires_at: Moment


class CalledFunction(TypedDict):
    """A function's name and its arguments. ``arguments`` is a JSON object as text."""

    name: str
    arguments: str


class Call(TypedDict):
    """A tool call, in the format that ``messages`` accept."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Usage(TypedDict):
    """Token counts. ``estimated``: the provider did not report both. ``tokens_saved``: the part of ``max_tokens``
    that a cancel left unused. ``cached_tokens`` (read from the provider's cache) and ``cache_write_tokens`` are part
    of ``input_tokens``, ``reasoning_tokens`` of ``output_tokens``; they are left out if the provider did not count
    them."""

    input_tokens: int
    output_tokens: int
    estimated: bool
    tokens_saved: NotRequired[int]
    cached_tokens: NotRequired[int]
    cache_write_tokens: NotRequired[int]
    reasoning_tokens: NotRequired[int]


class Cost(TypedDict):
    """An amount of money, by the configured prices."""

    amount: float
    currency: str


class TargetUsage(TypedDict):
    """Usage of one call of an answer that was continued. ``cost``: null without a price."""

    provider: str
    model: str
    usage: Usage
    cost: Cost | None


class PartialUsage(TypedDict):
    """Token counts as far as the provider has reported them. The fields mean the same as those of ``Usage``."""

    input_tokens: NotRequired[int]
    output_tokens: NotRequired[int]
    cached_tokens: NotRequired[int]
    cache_write_tokens: NotRequired[int]
    reasoning_tokens: NotRequired[int]


class StreamStatus(TypedDict):
    """The answer so far. ``json`` is set once it is complete and matches the requested schema, ``finish_reason`` and
    ``usage`` once the stream has ended, ``error`` if it failed. ``reason``: why it ended, if not by the provider's
    own decision. ``last_event_id``: the cursor after the last event included here. ``position``: the queue position,
    1 is next, until a worker takes the stream. ``usage_by_target``: the parts of ``usage``, if the answer was
    continued by another call. ``cost``: of all calls of the stream, once it has ended; null if one of them
    had no price, currencies differ, or none is known. ``usage_final``, ``cost_final``: the same by
    the provider's count, if it came after the end of a cancelled answer. ``ignored``: paths of the request's fields
    that have no effect, because the provider does not accept them. ``chat_id``: null if the stream belongs to no
    chat."""

    stream_id: str
    chat_id: str | None
    status: StatusWord
    position: int | None
    text: str
    reasoning: str
    refusal: str
    tool_calls: list[Call]
    json: Any
    finish_reason: FinishReason | None
    reason: str | None
    usage: Usage | None
    usage_by_target: list[TargetUsage]
    cost: Cost | None
    usage_final: Usage | None
    cost_final: Cost | None
    error: StreamFailure | None
    model: str
    provider: str
    attempt: int
    ignored: list[str]
    metadata: dict[str, str]
    last_event_id: str | None
    created_at: Moment | None
    started_at: Moment | None
    ended_at: Moment | None


class StreamSummary(TypedDict):
    stream_id: str
    chat_id: str | None
    status: StatusWord
    provider: str | None
    model: str | None
    finish_reason: FinishReason | None
    metadata: dict[str, str]
    created_at: Moment | None
    ended_at: Moment | None


class StreamList(TypedDict):
    """One page of streams. ``next_page`` goes into ``page``; null at the end. ``incomplete``: true if the archive is
    unavailable, so that streams are missing which only the archive has."""

    streams: list[StreamSummary]
    next_page: str | None
    incomplete: NotRequired[bool]


class CancelAnswer(TypedDict):
    """The status after a cancel. It may still be ``running``: the worker is notified and ends the stream within
    moments."""

    stream_id: str
    status: StatusWord


class TicketAnswer(TypedDict):
    """Both URLs contain the ticket."""

    stream_url: str
    status_url: str
    expires_at: Moment


class Health(TypedDict):
    status: Literal["ok"]
    version: str


class Readiness(TypedDict):
    """``accepting``: a worker takes new requests, and Redis is not full."""

    status: Literal["ready"]
    accepting: bool


class ModelCard(TypedDict):
    """One model. ``id`` is ``provider/model``; ``provider/*`` means any name, for a provider without a list.
    ``created`` and ``created_at`` are the same time: the provider's date of the model, or else the time at which this
    server first offered the provider."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    type: Literal["model"]
    display_name: str
    created_at: Moment


class ModelList(TypedDict):
    """A page of models. ``last_id`` goes into ``after_id``, if ``has_more``."""

    object: Literal["list"]
    data: list[ModelCard]
    has_more: bool
    first_id: str | None
    last_id: str | None


class UsageGroup(TypedDict):
    """Calls of providers with the same ``day``, ``key_id`` and ``model`` (``provider/model``), as far as the report
    is by these, and of one currency. ``failed_calls`` had no answer, the tokens of ``estimated_calls`` are estimated,
    ``unpriced_calls`` used tokens that no price is configured for. ``cost``: null without a price."""

    day: NotRequired[Annotated[str, Field(json_schema_extra={"format": "date"})]]
    key_id: NotRequired[str | None]
    model: NotRequired[str]
    calls: int
    failed_calls: int
    estimated_calls: int
    unpriced_calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost: Cost | None


class BudgetState(TypedDict):
    """One limit of a budget in the period of now (UTC). ``kind``: money, in units of ``currency``, or tokens.
    ``used`` is final; ``reserved`` is what requests in progress may still use."""

    period: Literal["day", "month"]
    kind: Literal["money", "tokens"]
    currency: str | None
    limit: float
    used: float
    reserved: float
    resets_at: Annotated[str, Field(json_schema_extra={"format": "date-time"})]


UsageReport = TypedDict(
    "UsageReport",
    {
        "from": Annotated[str, Field(json_schema_extra={"format": "date"})],
        "to": Annotated[str, Field(json_schema_extra={"format": "date"})],
        "by": list[str],
        "usage": list[UsageGroup],
        "total": list[UsageGroup],
        "budgets": list[BudgetState],
    },
)
