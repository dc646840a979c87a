"""Body of ``POST /chat`` and ``POST /chat/stream``."""

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from shared.errors import InvalidRequest
from shared.schemas.json_bounds import check_value_count, check_values
from shared.schemas.messages import Message, check_results
from shared.schemas.model import WHOLE, AnyObject, Model
from shared.schemas.original import Original
from shared.schemas.refusals import refusal
from shared.schemas.request_budget import RequestBudget
from shared.schemas.response_format import ResponseFormat
from shared.schemas.text_count import request_characters
from shared.schemas.tools import NamedToolChoice, Tool, ToolChoice

OnDisconnect = Literal["cancel", "continue"]
OnWorkerLost = Literal["resume", "restart", "fail"]
OnProviderLost = Literal["fail", "continue"]
Priority = Literal["interactive", "batch"]
OptionsFamily = Literal["anthropic", "openai", "responses", "ollama"]

MOST_FALLBACKS: Final = 8
#: Targets of one alias.
MOST_TARGETS: Final = 16
M = TypeVar("M", bound=Model)
_BETA: Final = re.compile(r"[!-+\--~]{1,256}")
_any_object = TypeAdapter(dict[str, Any])

MAX_METADATA_ENTRIES = 16
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
ChatId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
StopSequence = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Stop = StopSequence | Annotated[list[StopSequence], Field(max_length=16)] | None


_NOT_STREAMED: Final = (
    "false is not possible here, because every answer is a stream; use POST /chat and then GET /chat/{stream_id},"
    " or POST /v1/chat/completions"
)


def _needs(field: str, needed: str, kind: str) -> dict[str, Any]:
    """Return the rule of a JSON schema that ``field`` is only possible with ``needed``."""
    given = {"required": [field], "properties": {field: {"not": {"type": "null"}}}}
    return {"if": given, "then": {"required": [needed], "properties": {needed: {"type": kind}}}}


_RULES: Final[Any] = [_needs("tool_choice", "tools", "array"), _needs("history", "chat_id", "string")]


class ChatRequest(Model):
    """A chat request, and the handling of disconnected clients and lost workers.

    Also refused with 422: a tool result without an earlier call, two tools with the same name, and an invalid JSON
    schema.
    """

    # The texts below the fields go into the OpenAPI description.
    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_extra={"allOf": _RULES})

    model: ModelName
    """With ``provider`` the provider's own name; else ``openai/gpt-5``, or a name that only one provider has."""
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    """The conversation so far."""
    provider: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    """``openai``, ``anthropic``, ``ollama`` or ``demo``: ``owned_by`` in ``GET /v1/models``."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Anthropic supports neither this nor ``presence_penalty``."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000), WHOLE] | None = None
    stop: Annotated[list[StopSequence], Field(max_length=16)] | None = None
    """The answer ends before the first of these texts."""
    top_k: Annotated[int, Field(ge=0, le=1_000_000), WHOLE] | None = None
    """Supported by Anthropic and Ollama."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), WHOLE] | None = None
    """Supported by OpenAI and Ollama."""
    user: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None
    """An opaque id of the end user, for the provider's detection of abuse."""
    tools: Annotated[list[Tool], Field(min_length=1, max_length=4096)] | None = None
    tool_choice: ToolChoice | None = None
    """``required``: the model must call some tool. Only with ``tools``."""
    parallel_tool_calls: bool | None = None
    """``false``: at most one call."""
    response_format: ResponseFormat | None = None
    """Form of the answer; text by default."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """OpenAI gets this value, other providers the nearest that they support."""
    reasoning_tokens: Annotated[int, Field(ge=1, le=10_000_000), WHOLE] | None = None
    """Most tokens of reasoning, for models with such a limit; others get the nearest ``reasoning_effort``."""
    provider_options: dict[OptionsFamily, AnyObject] | None = None
    """Fields of a provider's own request, by its family, added to that provider's request as they are."""
    unsupported_fields: Literal["drop", "refuse"] | None = None
    """``drop``: a field that the provider lacks is left out and named in ``ignored``. ``refuse``: the request fails.
    Default: the server's."""
    stream: Annotated[Literal[True] | None, Field(exclude=True)] = None
    """Accepted as OpenAI's clients send it: an answer is always a stream. ``false`` is refused."""
    only_count: bool | None = None
    """Only count the tokens of the request, as ``input_tokens`` of ``usage``. Supported by Anthropic."""
    fallbacks: Annotated[list[ModelName], Field(max_length=MOST_FALLBACKS)] | None = None
    """Models to try in this order if the model before fails without any output."""
    on_disconnect: OnDisconnect | None = None
    """Action after ``grace_s`` without a reader. ``cancel`` stops and keeps the partial answer; it is the default of
    ``POST /chat/stream``. ``continue`` continues; it is the default of ``POST /chat``."""
    grace_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    """Seconds; 60 by default."""
    on_worker_lost: OnWorkerLost | None = None
    """``resume`` (default): another worker continues the answer at a provider that stores it, else as ``restart``.
    ``restart``: another worker restarts the answer, and readers get a ``reset``. ``fail``: the stream ends."""
    on_provider_lost: OnProviderLost | None = None
    """Action if the provider breaks off in mid-answer. ``fail`` (default): the stream ends with an error.
    ``continue``: a target that continues a given text goes on, and an event ``continued`` names it."""
    priority: Priority | None = None
    """``interactive`` (default), or ``batch``: the stream waits until no interactive one does. One in ten streams may
    be a batch one meanwhile. OpenAI's ``service_tier`` is another matter, and goes to the provider."""
    webhook_url: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    """Receiver of the stream's ending. Its host must be allowed by the server; see docs/integration.md."""
    chat_id: ChatId | None = None
    """Your id of the conversation. Its earlier turns are added before ``messages``, which are only the new ones."""
    history: Literal["add", "given"] | None = None
    """``add``: the chat exists, and ``messages`` are all new. ``given``: ``messages`` are the whole conversation, and
    replace the chat's. Default: as ``add``, but the chat may be new, and messages that begin with its conversation
    are taken as ``given``. Only with ``chat_id``."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA_ENTRIES)] | None = None
    """Data of the caller, returned by ``GET /chat/{stream_id}``."""

    @field_validator("stop", mode="before", json_schema_input_type=_Stop)
    @classmethod
    def _list_of_one_stop(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("stream", mode="before")
    @classmethod
    def _is_streamed(cls, value: object) -> object:
        """Refuse 1 too, which equals ``true`` in Python."""
        if value is False:
            raise ValueError(_NOT_STREAMED)
        if value is not None and value is not True:
            raise ValueError("must be true")
        return value

    @field_validator("provider_options")
    @classmethod
    def _has_names_of_betas(cls, options: dict[str, dict[str, Any]] | None) -> dict[str, dict[str, Any]] | None:
        """Check the betas, which become a header."""
        betas = (options or {}).get("anthropic", {}).get("betas")
        if betas is not None and not (isinstance(betas, list) and all(map(_is_beta, betas))):
            raise ValueError("anthropic.betas: must be a list of names; use letters, digits and -")
        return options

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_results(self.messages)
        if self.history is not None and self.chat_id is None:
            raise ValueError("history: there is no chat; add chat_id or remove history")
        names = set[str]()
        for at, tool in enumerate(self.tools or ()):
            if tool.function.name in names:
                raise ValueError(f"tools.{at}.function.name: an earlier tool has this name; use unique names")
            names.add(tool.function.name)
        if self.tool_choice is not None and not names:
            raise ValueError("tool_choice: there are no tools; add tools or remove tool_choice")
        if isinstance(self.tool_choice, NamedToolChoice) and self.tool_choice.function.name not in names:
            raise ValueError("tool_choice.function.name: no tool has this name; use one of tools")
        return self

    @property
    def loss_fields(self) -> dict[str, str]:
        """Fields of the stream's state about the loss of its worker, see :func:`loss_fields`."""
        return loss_fields(self.on_worker_lost)

    @property
    def prompt_characters(self) -> int:
        """Approximate number of characters that a provider gets, to estimate usage. An image counts as many as its
        tokens are likely to be worth."""
        sent = sum(m.characters for m in self.messages)
        forms = [*(self.tools or ()), *([self.response_format] if self.response_format else ())]
        sent += sum(len(json.dumps(form.model_dump(exclude_none=True), ensure_ascii=False)) for form in forms)
        return sent + sum(map(request_characters, (self.provider_options or {}).values()))


def loss_fields(said: OnWorkerLost | None, *, fails: bool = False) -> dict[str, str]:
    """Return the fields of a stream's state about the loss of its worker. ``on_worker_lost``: what happens unless the
    answer is resumed; empty is ``restart``. ``may_resume``: 1 if it may be resumed."""
    default = "fail" if fails else ""
    return {"on_worker_lost": said or default, "may_resume": str(int(said in {None, "resume"}))}


class StoredRequest(ChatRequest):
    """A request with the original of its client, if the client's dialect belongs to a provider family. Native
    requests cannot set it."""

    original: Original | None = None
    #: With the other targets of an alias before them.
    fallbacks: Annotated[list[ModelName], Field(max_length=MOST_FALLBACKS + MOST_TARGETS)] | None = None
    #: Default of dialects whose clients cannot take text back: without a provider that stores the answer, the loss of
    #: its worker ends it. Only the state contains it, see :attr:`loss_fields`.
    fails_unless_resumed: Annotated[bool, Field(exclude=True)] = False

    @property
    def loss_fields(self) -> dict[str, str]:
        return loss_fields(self.on_worker_lost, fails=self.fails_unless_resumed)

    @property
    def prompt_characters(self) -> int:
        known = super().prompt_characters
        return known if self.original is None else max(known, self.original.characters)


def _is_beta(name: object) -> bool:
    return isinstance(name, str) and _BETA.fullmatch(name) is not None


def original_for(request: ChatRequest, family: str) -> Original | None:
    """Return the request's original if a provider of ``family`` can send it."""
    original = request.original if isinstance(request, StoredRequest) else None
    return original if original is not None and original.family == family else None


def lost_for(request: ChatRequest, family: str) -> tuple[str, ...]:
    """Return paths of the client's fields that a provider of ``family`` cannot get."""
    original = request.original if isinstance(request, StoredRequest) else None
    return () if original is None or original.family == family else tuple(original.specific)


def forced_for(request: ChatRequest, family: str) -> str | None:
    """Return the path of a forced tool that a provider of ``family`` cannot have, or None."""
    original = request.original if isinstance(request, StoredRequest) else None
    return None if original is None or original.family == family else original.forced


def parse_chat_request(body: bytes, budget: RequestBudget | None = None) -> ChatRequest:
    """Parse the body of a chat request. Raises like :func:`parse_body`."""
    return parse_body(ChatRequest, body, budget)


def parse_body(kind: type[M], body: bytes, budget: RequestBudget | None = None) -> M:
    """Parse and validate a body, within ``budget``.

    Raises :class:`InvalidJson` or :class:`InvalidRequest`. Their messages name the problem and repeat no content.
    """
    _check(check_value_count, body)
    try:
        return kind.model_validate_json(body, context=budget or RequestBudget())
    except ValidationError as error:
        raise refusal(error, kind) from None


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Parse a body of another dialect as a JSON object. Raises like :func:`parse_body`."""
    _check(check_value_count, body)
    parsed = parse_stored_object(body)
    _check(check_values, parsed)
    return parsed


def parse_stored_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object that was checked before it was stored. Raises like :func:`parse_body`."""
    try:
        return _any_object.validate_json(body)
    except ValidationError as error:
        raise refusal(error) from None


def validate(
    kind: type[M],
    raw: dict[str, Any],
    budget: RequestBudget | None = None,
    path_of: Callable[[str], str] | None = None,
) -> M:
    """Validate a request that was converted from another dialect. ``path_of``: the client's path of a canonical one.
    Raises like :func:`parse_body`."""
    try:
        return kind.model_validate(raw, context=budget or RequestBudget())
    except ValidationError as error:
        raise refusal(error, kind, path_of) from None


def _check(check: Callable[[Any], None], value: object) -> None:
    try:
        check(value)
    except ValueError as error:
        raise InvalidRequest(f"body: {error}") from None
