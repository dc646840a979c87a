"""The body of ``POST /chat`` and ``POST /chat/stream``."""

import json
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

from shared.errors import InvalidJson, InvalidRequest
from shared.schemas.messages import Message, check_results
from shared.schemas.model import WHOLE, Model
from shared.schemas.response_format import ResponseFormat
from shared.schemas.tools import NamedToolChoice, Tool, ToolChoice

OnDisconnect = Literal["cancel", "continue"]
OnWorkerLost = Literal["restart", "fail"]

M = TypeVar("M", bound=Model)
_any_object = TypeAdapter(dict[str, Any])

MAX_METADATA_ENTRIES = 16
#: Of a field that an error message names; the name may be the client's own.
_LONGEST_NAME: Final = 64
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
StopSequence = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Stop = StopSequence | Annotated[list[StopSequence], Field(max_length=16)] | None
_TOOL_CHOICE_NEEDS_TOOLS: Final[dict[str, Any]] = {
    "if": {"required": ["tool_choice"], "properties": {"tool_choice": {"not": {"type": "null"}}}},
    "then": {"required": ["tools"], "properties": {"tools": {"type": "array"}}},
}


class ChatRequest(Model):
    """What is asked, and what is to become of the answer where something goes wrong. 422 also where a tool's result
    belongs to no call before it, two tools have one name, or what is to be a JSON schema is none."""

    # The texts below the fields are for the OpenAPI description.
    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_extra=_TOOL_CHOICE_NEEDS_TOOLS)

    model: ModelName
    """With ``provider`` the provider's own name; else ``openai/gpt-5``, or a name that only one provider has."""
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    """The conversation so far."""
    provider: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    """``openai``, ``anthropic``, ``ollama``, ``demo``: what ``GET /v1/models`` lists as ``owned_by``."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """This and ``presence_penalty`` Anthropic has not."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000), WHOLE] | None = None
    stop: Annotated[list[StopSequence], Field(max_length=16)] | None = None
    """The answer ends before any of these."""
    tools: Annotated[list[Tool], Field(min_length=1, max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    """``required``: one of them, whichever. Only with ``tools``."""
    parallel_tool_calls: bool | None = None
    """``false``: one call at most. Ollama cannot promise that."""
    response_format: ResponseFormat | None = None
    """What form the answer is to have; text, where nothing is said."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """OpenAI is asked in these words, the others in the nearest that they have."""
    only_count: bool | None = None
    """No answer, only how many tokens the request has: ``input_tokens`` of ``usage``. Anthropic's can say."""
    fallbacks: Annotated[list[ModelName], Field(max_length=8)] | None = None
    """Models to ask, in this order, where the one before fails without a word of an answer."""
    on_disconnect: OnDisconnect | None = None
    """What is to happen when nobody has read for ``grace_s``. ``cancel`` stops and keeps what there is; it is the
    default of ``POST /chat/stream``. ``continue`` goes on; it is the default of ``POST /chat``."""
    grace_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    """Seconds; 60 where nothing is said."""
    on_worker_lost: OnWorkerLost = "restart"
    """``restart``: another worker begins anew, and readers are told to ``reset``. ``fail``: it ends as it is."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA_ENTRIES)] | None = None
    """The caller's own; ``GET /chat/{stream_id}`` gives it back."""

    @field_validator("stop", mode="before", json_schema_input_type=_Stop)
    @classmethod
    def _one_stop_is_a_list_of_one(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_results(self.messages)
        names = set[str]()
        for at, tool in enumerate(self.tools or ()):
            if tool.function.name in names:
                raise ValueError(f"tools.{at}.function.name: an earlier tool has this name")
            names.add(tool.function.name)
        if self.tool_choice is not None and not names:
            raise ValueError("tool_choice: there are no tools to choose from")
        if isinstance(self.tool_choice, NamedToolChoice) and self.tool_choice.function.name not in names:
            raise ValueError("tool_choice.function.name: no tool has this name")
        return self

    @property
    def prompt_characters(self) -> int:
        """As many as a provider is sent, nearly: to estimate usage from."""
        sent = sum(len(m.text) + sum(len(c.function.arguments) for c in m.tool_calls or ()) for m in self.messages)
        return sent + sum(len(json.dumps(tool.model_dump(exclude_none=True))) for tool in self.tools or ())


def parse_chat_request(body: bytes) -> ChatRequest:
    return parse_body(ChatRequest, body)


def parse_body(kind: type[M], body: bytes) -> M:
    """``body`` as it came over the wire. Raises :class:`InvalidJson` or :class:`InvalidRequest`, each naming
    what is wrong without repeating what was sent."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def parse_json_object(body: bytes) -> dict[str, Any]:
    """The same for what is no request of ours yet."""
    try:
        return _any_object.validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def checked(kind: type[M], asked: dict[str, Any]) -> M:
    """The same for what was a request of another dialect."""
    try:
        return kind.model_validate(asked)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> InvalidJson | InvalidRequest:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        return InvalidJson(f"the body is not valid JSON: {problems[0]['msg']}")
    return InvalidRequest("; ".join(_describe(p["loc"], p["type"], p["msg"]) for p in problems[:5]))


def _describe(location: tuple[int | str, ...], kind: str, message: str) -> str:
    parts = [text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…" for text in map(str, location)]
    field = ".".join(part for part in parts if not part.startswith("("))
    if kind == "extra_forbidden":
        return f"{field}: unknown field"
    if kind == "value_error":
        message = message.removeprefix("Value error, ")
        return f"{field}: {message}" if field else message
    return f"{field or 'body'}: {message[:1].lower()}{message[1:]}"
