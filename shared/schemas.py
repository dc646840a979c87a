"""The canonical request: what a client may ask, free of any provider's dialect."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from shared.errors import InvalidJson, InvalidRequest

Role = Literal["system", "user", "assistant"]
OnDisconnect = Literal["cancel", "continue"]
OnWorkerLost = Literal["restart", "fail"]

MAX_METADATA_ENTRIES = 16
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
StopSequence = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    content: str


class ChatRequest(BaseModel):
    """The body of ``POST /chat`` and ``POST /chat/stream``.

    A field nobody knows is refused by name. ``on_disconnect`` and ``grace_s`` default per route, see
    ``gateway.api.chat``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    provider: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    stop: Annotated[list[StopSequence], Field(max_length=16)] | None = None
    on_disconnect: OnDisconnect | None = None
    grace_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    on_worker_lost: OnWorkerLost = "restart"
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA_ENTRIES)] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_is_a_list_of_one(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


def parse_chat_request(body: bytes) -> ChatRequest:
    """``body`` as it came over the wire. Raises :class:`InvalidJson` or :class:`InvalidRequest`, each naming
    what is wrong without repeating what was sent."""
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        if problems[0]["type"] == "json_invalid":
            raise InvalidJson(f"the body is not valid JSON: {problems[0]['msg']}") from None
        raise InvalidRequest("; ".join(_describe(p["loc"], p["type"], p["msg"]) for p in problems[:5])) from None


def _describe(location: tuple[int | str, ...], kind: str, message: str) -> str:
    field = ".".join(str(part) for part in location) or "body"
    if kind == "extra_forbidden":
        return f"{field}: unknown field"
    return f"{field}: {message[:1].lower()}{message[1:]}"
