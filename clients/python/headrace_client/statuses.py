"""JSON bodies of the gateway that callers get as they are. A newer gateway may add fields."""

from typing import Any, Literal, NotRequired, TypedDict


class Usage(TypedDict):
    """Token counts. ``estimated``: the provider did not report both totals."""

    input_tokens: int
    output_tokens: int
    estimated: bool
    tokens_saved: NotRequired[int]
    cached_tokens: NotRequired[int]
    cache_write_tokens: NotRequired[int]
    reasoning_tokens: NotRequired[int]


class Cost(TypedDict):
    """An amount of money, such as 0.00123 USD."""

    amount: float
    currency: str


class TargetUsage(TypedDict):
    """Usage of one call of an answer that another call continued. ``cost`` is None without a price."""

    provider: str
    model: str
    usage: Usage
    cost: Cost | None


class CalledFunction(TypedDict):
    name: str
    arguments: str


class Call(TypedDict):
    """A tool call in the format that ``messages`` accept."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Failure(TypedDict):
    """The error of a failed answer."""

    code: str
    message: str
    retryable: bool
    provider_code: NotRequired[str]
    param: NotRequired[str]


class StreamStatus(TypedDict):
    """The answer so far, as ``GET /chat/{id}`` returns it. ``finish_reason``, ``usage`` and ``cost`` are None until
    the end."""

    stream_id: str
    chat_id: str | None
    status: str
    position: int | None
    text: str
    reasoning: str
    refusal: str
    tool_calls: list[Call]
    json: Any
    finish_reason: str | None
    reason: str | None
    usage: Usage | None
    usage_by_target: list[TargetUsage]
    cost: Cost | None
    usage_final: Usage | None
    cost_final: Cost | None
    error: Failure | None
    model: str
    provider: str
    attempt: int
    ignored: list[str]
    metadata: dict[str, str]
    last_event_id: str | None
    created_at: str | None
    started_at: str | None
    ended_at: str | None


class ChatSummary(TypedDict):
    """One chat. ``title`` is the beginning of its first user message; ``status`` and ``model`` are of its last
    stream."""

    chat_id: str
    title: str
    streams: int
    last_stream_id: str
    status: str
    model: str | None
    provider: str | None
    created_at: str | None
    updated_at: str | None


class ChatList(TypedDict):
    """One page of chats. ``next_page`` is None at the end."""

    chats: list[ChatSummary]
    next_page: str | None


class ChatTurn(TypedDict):
    """One stream of a chat. ``history`` is "given" if its messages replaced the conversation. ``messages``: the new
    ones of its request; None if the gateway does not keep them."""

    stream_id: str
    stream_url: str
    status_url: str
    status: str
    model: str
    history: str | None
    messages: list[dict[str, Any]] | None
    answer: StreamStatus


class Chat(TypedDict):
    """A chat and one page of its turns, the oldest first."""

    chat_id: str
    title: str
    created_at: str | None
    updated_at: str | None
    turns: list[ChatTurn]
    next_page: str | None
