"""Hooks: your own checks of requests and answers (docs/hooks.md). Everything here is public.

Set ``HEADRACE_HOOKS=my_module:MyHooks`` for all gateways and workers. Each process makes one instance of the class,
without arguments::

    class MyHooks(Hooks):
        async def check_request(self, request, context):
            if "forbidden" in " ".join(texts_of(request)):
                raise RequestRefused("this topic is not allowed here")
            return None

        def watch_answer(self, context):
            return MyWatch()
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Final, Literal, Protocol, runtime_checkable

from shared.errors import GenerationError, RequestError
from shared.hook_texts import mapped, texts_in
from shared.schemas.chat import ChatRequest, StoredRequest

TextKind = Literal["text", "reasoning", "refusal"]
#: Fields of a request whose texts the provider gets.
_WITH_TEXTS: Final = ("messages", "tools", "response_format")


class RequestRefused(RequestError):
    """Raised by :meth:`Hooks.check_request` to refuse a request. ``message`` is for the user."""

    code = "request_refused"
    http_status = 422
    message = "the request was refused by this service"
    when = "a check of this service refused the request; the message may say why"


class AnswerRefused(GenerationError):
    """Raised by an :class:`AnswerWatch` to stop an answer. ``message`` is for the user; the answer ends with the
    error code ``answer_refused``, and what was appended before stays."""

    def __init__(self, message: str = "the answer was stopped by this service") -> None:
        super().__init__("answer_refused", message, summary="a hook refused the answer")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The caller of a request. ``principal``: owner of the stream, as ``key:NAME`` or ``jwt:SUB``. ``key_id``: of its
    API key."""

    principal: str
    key_id: str | None


@dataclass(frozen=True, slots=True)
class AnswerContext:
    """One call of a provider. ``request``: as it was queued. ``attempt``: 1, or more if a worker was lost; each call
    begins the answer anew, with a watch of its own."""

    stream_id: str
    principal: str
    provider: str
    model: str
    attempt: int
    request: StoredRequest


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """An answer as it was appended. ``tool_calls``: name and arguments of each. ``finish_reason``: as in ``done``;
    ``error``: code of the error that ended it, if one did."""

    text: str
    reasoning: str
    refusal: str
    tool_calls: tuple[tuple[str, str], ...]
    finish_reason: str
    error: str | None


class AnswerWatch:
    """A watch over one answer, in the order in which the provider sends it. Every method may raise
    :class:`AnswerRefused`. Any other exception, and a call that takes longer than ``HEADRACE_HOOK_TIMEOUT_S``, ends
    the answer with ``hook_failed``.

    ``redacts``: what the methods return is appended in place of what they got, and provider-specific data, which
    repeats texts or signs them, is left out. If false, their results are ignored.
    """

    redacts: ClassVar[bool] = False

    async def on_text(self, text: str, kind: TextKind) -> str:
        """Return the text to append now. Keep undecided text, and return it later."""
        return text

    async def flush(self, kind: TextKind) -> str:
        """Return the text that was kept: texts of another kind, a tool call or the end follow."""
        return ""

    async def on_tool_call(self, name: str, arguments: str) -> str:
        """Return the arguments of a complete call, the text of a JSON object. No part of it was appended before."""
        return arguments

    async def on_end(self, answer: WholeAnswer) -> None:
        """Look at the whole answer before its end is written. A refusal makes an answer that was complete fail."""


class Hooks:
    """Base class of your hooks. One instance serves all requests of a process."""

    async def check_request(self, request: ChatRequest, context: RequestContext) -> ChatRequest | None:
        """Return None to queue the request as it is, or a changed copy (:func:`with_texts`, ``model_copy``). Raise
        :class:`RequestRefused` to refuse it. ``request.original`` has the client's own body, if its API is not
        Headrace's; a changed request goes on without it."""
        return None

    def watch_answer(self, context: AnswerContext) -> AnswerWatch | None:
        """Return a watch for an answer that begins; None to let it pass."""
        return None

    async def aclose(self) -> None:
        """Close connections; called when the process stops."""


@runtime_checkable
class HooksLike(Protocol):
    """The methods that a class needs if it does not inherit :class:`Hooks`."""

    def check_request(self, request: ChatRequest, context: RequestContext) -> Awaitable[ChatRequest | None]: ...

    def watch_answer(self, context: AnswerContext) -> AnswerWatch | None: ...

    def aclose(self) -> Awaitable[None]: ...


def texts_of(request: ChatRequest) -> Iterator[str]:
    """Yield every text that a provider gets for its model: of the messages, tools, response format and provider
    options, and those of the original that only its own provider gets. Not: names of tools and of participants."""
    seen = set[str]()
    original = request.original if isinstance(request, StoredRequest) else None
    parts: list[Any] = [_dumped(each) for name in _WITH_TEXTS for each in _members(request, name)]
    texts = texts_in([*parts, *([original.body] if original is not None else [])])
    for text in chain(texts, texts_in(request.provider_options, is_free=True)):
        if text not in seen:
            seen.add(text)
            yield text


def with_texts(request: ChatRequest, change: Callable[[str], str]) -> ChatRequest | None:
    """Return the request with ``change`` applied to every text of :func:`texts_of`, also within arguments of tool
    calls, but for the names in schemas; None if that changes nothing, also in the client's original. A message's data
    for its provider is left out rather than changed, since it may be signed."""
    update: dict[str, Any] = {}
    for name in _WITH_TEXTS:
        members = _members(request, name)
        before = [_dumped(each) for each in members]
        if (changed := mapped(before, change)) != before:
            made = [type(member).model_validate(each) for member, each in zip(members, changed, strict=True)]
            update[name] = made if isinstance(getattr(request, name), list) else made[0]
    options = mapped(request.provider_options, change, is_free=True)
    if options != request.provider_options:
        update["provider_options"] = options
    if update:
        return request.model_copy(update=update)
    original = request.original if isinstance(request, StoredRequest) else None
    if original is None or all(change(text) == text for text in texts_in(original.body)):
        return None
    return request.model_copy(update={"original": None})


def _members(request: ChatRequest, name: str) -> list[Any]:
    """Return the models of a field: none, one, or those of its list."""
    value = getattr(request, name)
    return value if isinstance(value, list) else [value] if value is not None else []


def _dumped(model: Any) -> Any:
    return model.model_dump(mode="json", exclude_none=True, by_alias=True)
