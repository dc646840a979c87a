"""How the routes of other dialects and of operators are described: their groups, bodies and errors."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.api.dialect_schemas import reference
from gateway.api.error_catalog import Responses

STREAMS: Final = "Streams"
CHATS: Final = "Chats"
MODELS: Final = "Models and usage"
OPENAI: Final = "OpenAI"
ANTHROPIC: Final = "Anthropic"
AI_SDK: Final = "AI SDK"
AG_UI: Final = "AG-UI"
OPERATORS: Final = "Operators"
SERVER: Final = "Server"
#: Groups in which a reader meets them.
TAGS: Final[list[dict[str, str]]] = [
    {"name": STREAMS, "description": "Create an answer, read it from any point, cancel and delete it."},
    {"name": CHATS, "description": "Conversations: their turns, and the list of them."},
    {"name": MODELS, "description": "Models on offer, and the calls, tokens and costs of the caller."},
    {"name": OPENAI, "description": "For OpenAI's SDKs, with the base URL `/v1`."},
    {"name": ANTHROPIC, "description": "For Anthropic's SDKs, with the base URL `/`."},
    {"name": AI_SDK, "description": "For `useChat` of Vercel's AI SDK."},
    {"name": AG_UI, "description": "For `HttpAgent` and other clients of the AG-UI protocol."},
    {"name": OPERATORS, "description": "Data of the operators' page `/ops`; with the scope `admin`."},
    {"name": SERVER, "description": "Health, metrics, and the way of a request through proxies."},
]

#: For a missing key, in each format.
_REFUSAL: Final = "credentials are missing; send Authorization: Bearer, X-Api-Key or the cookie"
_AS_OPENAI: Final = {"message": _REFUSAL, "type": "authentication_error", "param": None, "code": "unauthenticated"}
_AS_ANTHROPIC: Final = {"type": "authentication_error", "message": _REFUSAL}
_AS_NATIVE: Final = {"code": "unauthenticated", "message": _REFUSAL, "retryable": False}


def openai_answers(schema: str, events: str | None = None) -> Responses:
    """Describe a response in OpenAI's format. ``events``: of its stream, for a request with ``stream: true``."""
    return _answers(schema, events, "OpenAiErrorBody", {"error": _AS_OPENAI})


def anthropic_answers(schema: str, events: str | None = None) -> Responses:
    return _answers(schema, events, "AnthropicErrorBody", {"type": "error", "error": _AS_ANTHROPIC})


def native_answers(schema: str | None, events: str | None = None) -> Responses:
    """Describe a response with errors in our own format."""
    return _answers(schema, events, "ErrorBody", {"error": _AS_NATIVE})


def native_errors() -> Responses:
    """Describe the errors of a route in our own format; the framework describes its answer."""
    native = native_answers(None)
    return {status: native[status] for status in native if status == "default"}


def either_answers() -> Responses:
    """Describe the errors of a path that OpenAI's and Anthropic's clients share: each finds its members."""
    return native_errors()


def dialect_body(schema: str, example: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    """Return ``openapi_extra=`` of a route that parses its body itself."""
    content = {"schema": reference(schema), "examples": {"text": {"value": example}}}
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def _answers(schema: str | None, events: str | None, error: str, example: dict[str, Any]) -> Responses:
    content: dict[str, Any] = {} if schema is None else {"application/json": {"schema": reference(schema)}}
    if events is not None:
        content["text/event-stream"] = {"schema": {"type": "string", "description": events}}
    refused = {"schema": reference(error), "examples": {"unauthenticated": {"value": example}}}
    return {
        200: {"description": "The answer.", "content": content},
        "default": {"description": "An error.", "content": {"application/json": refused}},
    }
