"""Schemas of the bodies of other dialects: the members that most clients use. Each allows further ones, because the
full formats are OpenAI's, Anthropic's and Vercel's, and are documented there."""

from typing import Any, Final

Schema = dict[str, Any]


def _object(description: str, required: tuple[str, ...], **members: Schema) -> Schema:
    return {
        "type": "object",
        "description": description,
        "required": list(required),
        "properties": members,
        "additionalProperties": True,
    }


def _list_of(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "number"}
_COUNT: Final[Schema] = {"type": "integer"}
_FLAG: Final[Schema] = {"type": "boolean"}
_ANY: Final[Schema] = {"type": "object", "additionalProperties": True}
_ANYTHING: Final[Schema] = {}
_MODEL: Final[Schema] = {"type": "string", "description": "A model's `id` in `GET /v1/models`, or an alias."}
_TEXT_OR_PARTS: Final[Schema] = {"anyOf": [_TEXT, _list_of(_ANY)]}
_PRIVATE: Final[Schema] = {"type": "string", "description": "The error's code here; stable, for machines."}


def _message(*roles: str, needs_content: bool = True) -> Schema:
    role = {"type": "string", "enum": list(roles)}
    required = ("role", "content") if needs_content else ("role",)
    content = _TEXT_OR_PARTS if needs_content else _or_null(_TEXT_OR_PARTS)
    return _object("One message of the conversation.", required, role=role, content=content)


SCHEMAS: Final[dict[str, Schema]] = {
    "ChatCompletionMessage": _message(
        "system", "developer", "user", "assistant", "tool", "function", needs_content=False
    ),
    "ChatCompletionRequest": _object(
        "A request of OpenAI's Chat Completions; see OpenAI's reference for its other members.",
        ("model", "messages"),
        model=_MODEL,
        messages=_list_of(reference("ChatCompletionMessage"), minItems=1),
        stream=_FLAG,
        temperature=_NUMBER,
        max_completion_tokens=_COUNT,
        tools=_list_of(_ANY),
        response_format=_ANY,
    ),
    "ChatCompletionChoice": _object(
        "The answer; there is one.",
        ("index", "message", "finish_reason"),
        index=_COUNT,
        message=reference("ChatCompletionMessage"),
        finish_reason=_TEXT,
    ),
    "ChatCompletion": _object(
        "An answer of OpenAI's Chat Completions.",
        ("id", "object", "created", "model", "choices"),
        id=_TEXT,
        object=_TEXT,
        created=_COUNT,
        model=_TEXT,
        choices=_list_of(reference("ChatCompletionChoice")),
        usage=_or_null(_ANY),
    ),
    "ResponseRequest": _object(
        "A request of OpenAI's Responses; see OpenAI's reference for its other members.",
        ("model", "input"),
        model=_MODEL,
        input=_TEXT_OR_PARTS,
        instructions=_TEXT,
        previous_response_id=_TEXT,
        stream=_FLAG,
        background=_FLAG,
        store=_FLAG,
        max_output_tokens=_COUNT,
        tools=_list_of(_ANY),
    ),
    "ResponseObject": _object(
        "An answer of OpenAI's Responses. `output` is a list of items.",
        ("id", "object", "status"),
        id=_TEXT,
        object=_TEXT,
        status=_TEXT,
        created_at=_COUNT,
        model=_TEXT,
        output=_list_of(_ANY),
        usage=_or_null(_ANY),
        error=_or_null(_ANY),
    ),
    "ResponseDeleted": _object(
        "The id of a response that was deleted.", ("id", "object", "deleted"), id=_TEXT, object=_TEXT, deleted=_FLAG
    ),
    "ResponseItems": _object(
        "One page of the items of a response's input.",
        ("object", "data", "has_more"),
        object=_TEXT,
        data=_list_of(_ANY),
        first_id=_or_null(_TEXT),
        last_id=_or_null(_TEXT),
        has_more=_FLAG,
    ),
    "ResponseTokens": _object(
        "Number of tokens of a request.", ("object", "input_tokens"), object=_TEXT, input_tokens=_COUNT
    ),
    "MessagesMessage": _message("user", "assistant", "system"),
    "MessagesRequest": _object(
        "A request of Anthropic's Messages; see Anthropic's reference for its other members.",
        ("model", "messages", "max_tokens"),
        model=_MODEL,
        messages=_list_of(reference("MessagesMessage"), minItems=1),
        max_tokens=_COUNT,
        system=_TEXT_OR_PARTS,
        stream=_FLAG,
        temperature=_NUMBER,
        tools=_list_of(_ANY),
    ),
    "MessagesCountRequest": _object(
        "As `MessagesRequest`, without `max_tokens`.",
        ("model", "messages"),
        model=_MODEL,
        messages=_list_of(reference("MessagesMessage"), minItems=1),
        system=_TEXT_OR_PARTS,
        tools=_list_of(_ANY),
    ),
    "MessagesAnswer": _object(
        "An answer of Anthropic's Messages. `content` is a list of blocks.",
        ("id", "type", "role", "model", "content", "usage"),
        id=_TEXT,
        type=_TEXT,
        role=_TEXT,
        model=_TEXT,
        content=_list_of(_ANY),
        stop_reason=_or_null(_TEXT),
        usage=_ANY,
    ),
    "MessagesTokens": _object("Number of tokens of a request.", ("input_tokens",), input_tokens=_COUNT),
    "UiMessage": _object(
        "One message of `useChat`.",
        ("role", "parts"),
        id=_TEXT,
        role={"type": "string", "enum": ["system", "user", "assistant"]},
        parts=_list_of(_ANY),
    ),
    "UiChatRequest": _object(
        "What `useChat` of the AI SDK sends. `id` is the chat's.",
        ("id", "messages"),
        id=_TEXT,
        messages=_list_of(reference("UiMessage"), minItems=1),
        model=_MODEL,
    ),
    "UiStopRequest": _object(
        "The answer to stop, if it is still the chat's latest; without members, the latest.", (), activeStreamId=_TEXT
    ),
    "UiStopped": _object(
        "The stream that was stopped; null if there is none.",
        ("success", "stream_id"),
        success=_FLAG,
        stream_id=_or_null(_TEXT),
    ),
    "AgUiMessage": _object(
        "One message of AG-UI.",
        ("id", "role"),
        id=_TEXT,
        role={
            "type": "string",
            "enum": ["developer", "system", "user", "assistant", "tool", "reasoning", "activity"],
        },
        content=_ANYTHING,
    ),
    "RunAgentInput": _object(
        "What clients of AG-UI send. `forwardedProps` may have fields of `ChatRequest`, such as `model`.",
        ("threadId", "runId", "messages"),
        threadId=_TEXT,
        runId=_TEXT,
        messages=_list_of(reference("AgUiMessage"), minItems=1),
        tools=_list_of(_ANY),
        context=_list_of(_ANY),
        state=_ANYTHING,
        forwardedProps=_ANYTHING,
    ),
    "AgentCapabilities": _object(
        "AG-UI's `AgentCapabilities`.", (), identity=_ANY, transport=_ANY, tools=_ANY, custom=_ANY
    ),
    "OpenAiFailure": _object(
        "An error in OpenAI's format. `param`: the field that it is about.",
        ("message", "type", "code"),
        message=_TEXT,
        type=_TEXT,
        param=_or_null(_TEXT),
        code=_PRIVATE,
    ),
    "OpenAiErrorBody": _object("An error in OpenAI's format.", ("error",), error=reference("OpenAiFailure")),
    "AnthropicFailure": _object("An error in Anthropic's format.", ("type", "message"), type=_TEXT, message=_TEXT),
    "AnthropicErrorBody": _object(
        "An error in Anthropic's format.", ("type", "error"), type=_TEXT, error=reference("AnthropicFailure")
    ),
    "OperatorData": _ANY | {"description": "Data of the operators' page. Its members may change with any version."},
}
