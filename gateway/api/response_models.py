"""What the JSON routes answer. The handlers' types are the description's schemas, so that neither drifts.

Words from a fixed list are plain strings here and listed in the schema alone: an answer that a newer worker ended is
no reason to fail.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from shared.protocol.lifecycle import STATUS_AFTER, Status

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
StatusWord = Annotated[str, Field(json_schema_extra={"enum": [*Status]})]
FinishReason = Annotated[str, Field(json_schema_extra={"enum": [*STATUS_AFTER]})]


class Failure(TypedDict):
    """``code`` is stable and for machines, ``message`` for people; ``retryable``: the same may succeed later."""

    code: str
    message: str
    retryable: bool


class ErrorBody(TypedDict):
    """The body of every error."""

    error: Failure


class Accepted(TypedDict):
    """``stream_url`` carries a ticket, so that an ``EventSource`` needs no header; good until ``expires_at``."""

    stream_id: str
    stream_url: str
    status_url: str
    expires_at: Moment


class CalledFunction(TypedDict):
    """``arguments``: the text of a JSON object."""

    name: str
    arguments: str


class Call(TypedDict):
    """A call of a tool, in the form in which ``messages`` take it back."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Usage(TypedDict):
    """In tokens. ``estimated``: the provider did not say. ``tokens_saved``: what a cancel left of ``max_tokens``."""

    input_tokens: int
    output_tokens: int
    estimated: bool
    tokens_saved: NotRequired[int]


class StreamStatus(TypedDict):
    """The answer so far. ``json`` is there once the whole of it follows the schema that was asked for,
    ``finish_reason`` and ``usage`` once it has ended, ``error`` where it failed; ``reason`` says why it ended where
    that is not the provider's own word. ``last_event_id`` is the cursor behind all that is told here;
    ``position``: in the queue, 1 for the next, while nobody has taken it."""

    stream_id: str
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
    error: Failure | None
    model: str
    provider: str
    attempt: int
    metadata: dict[str, str]
    last_event_id: str | None
    created_at: Moment | None
    started_at: Moment | None
    ended_at: Moment | None


class StreamSummary(TypedDict):
    stream_id: str
    status: StatusWord
    provider: str | None
    model: str | None
    finish_reason: FinishReason | None
    metadata: dict[str, str]
    created_at: Moment | None
    ended_at: Moment | None


class StreamList(TypedDict):
    """``next_page`` goes into ``page``; null at the end."""

    streams: list[StreamSummary]
    next_page: str | None


class CancelAnswer(TypedDict):
    """``status`` may still be ``running``: the worker is told, and ends the stream within moments."""

    stream_id: str
    status: StatusWord


class TicketAnswer(TypedDict):
    """Both URLs carry the ticket."""

    stream_url: str
    status_url: str
    expires_at: Moment


class Health(TypedDict):
    status: Literal["ok", "ready"]


class ModelCard(TypedDict):
    """``id`` is ``provider/model``; ``provider/*`` stands for any name, where a provider has no list."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[ModelCard]
