"""Converts the canonical request to that of Ollama's ``/api/chat``."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from shared.errors import ProviderError
from shared.schemas import ChatRequest, FilePart, ImagePart, Message
from workers.providers.ollama_tools import forced_functions, format_of, instruction_of

Body = dict[str, object]
#: Nearest value for each effort that Ollama does not have.
_THINK: Final[Mapping[str, object]] = {"none": False, "minimal": "low", "xhigh": "high", "max": "high"}
#: Largest number of reasoning tokens for each effort; `high` above.
_EFFORTS: Final = ((4_096, "low"), (16_384, "medium"))
#: Members of ``provider_options`` that are members of the request; all others are options of the model.
_MEMBERS: Final = frozenset(
    {"options", "keep_alive", "think", "format", "logprobs", "top_logprobs", "truncate", "shift"}
)
#: Members of ``provider_options`` that the canonical request alone sets.
_FIXED: Final = frozenset({"model", "messages", "stream", "tools"})


def body_of(request: ChatRequest) -> Body:
    """Return the body. Raises :class:`ProviderError` for features that Ollama does not have."""
    optional: dict[str, object | None] = {
        "options": _options(request) or None,
        "tools": _tools(request),
        "format": _format(request),
        "think": _think(request),
        **{name: value for name, value in _own(request).items() if name in _MEMBERS - {"options"}},
    }
    return {
        "model": request.model,
        "messages": [*_messages(request.messages), *_instruction(request)],
        "stream": True,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _options(request: ChatRequest) -> Body:
    options = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "num_predict": request.max_tokens,
        "stop": request.stop,
        "top_k": request.top_k,
        "seed": request.seed,
    }
    own = _own(request)
    given = own.get("options")
    return {
        **{name: value for name, value in options.items() if value is not None},
        **{name: value for name, value in own.items() if name not in _MEMBERS | _FIXED},
        **(given if isinstance(given, dict) else {}),
    }


def _own(request: ChatRequest) -> Body:
    return (request.provider_options or {}).get("ollama", {})


def ignored_by(request: ChatRequest) -> tuple[str, ...]:
    """Return the fields of the client that :func:`body_of` has to leave out."""
    return tuple(f"provider_options.ollama.{name}" for name in sorted(_FIXED & _own(request).keys()))


def _think(request: ChatRequest) -> object:
    effort = request.reasoning_effort
    if effort is None and (tokens := request.reasoning_tokens) is not None:
        return next((name for most, name in _EFFORTS if tokens <= most), "high")
    return _THINK.get(effort or "", effort)


def _instruction(request: ChatRequest) -> list[Body]:
    functions = forced_functions(request)
    return [{"role": "system", "content": instruction_of(functions)}] if functions else []


def _tools(request: ChatRequest) -> list[Body] | None:
    if request.tools is None or request.tool_choice == "none" or forced_functions(request):
        return None
    return [tool.model_dump(mode="json", exclude_none=True, exclude={"cache_control"}) for tool in request.tools]


def _format(request: ChatRequest) -> str | dict[str, Any] | None:
    if functions := forced_functions(request):
        return format_of(functions)
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    return "json" if wanted.json_schema is None else wanted.json_schema.schema_


def _messages(messages: Sequence[Message]) -> list[Body]:
    """Convert the messages. Tool results name the tool instead of the call's id. Their images follow in a message of
    the user, because only those of a user are read."""
    names: dict[str, str] = {}
    made: list[Body] = []
    waiting: list[str] = []
    for message in messages:
        images = [_image(part) for part in message.parts if isinstance(part, ImagePart)]
        if message.role == "tool":
            waiting += images
            images = []
        elif waiting:
            made.append(_images_of_results(waiting))
            waiting = []
        made.append(_message(message, names) | ({"images": images} if images else {}))
        names |= {call.id: call.function.name for call in message.tool_calls or ()}
    return [*made, _images_of_results(waiting)] if waiting else made


def _images_of_results(images: list[str]) -> Body:
    return {"role": "user", "content": "Images of the tool results:", "images": images}


def _message(message: Message, names: Mapping[str, str]) -> Body:
    made: Body = {"role": message.role, "content": _text(message)}
    if (
        name := names.get(message.tool_call_id or "")
    ) is not None:  # the call may have been cut off with the beginning of the history
        made["tool_name"] = name
    if message.tool_calls:
        made["tool_calls"] = [
            {"function": {"name": c.function.name, "arguments": c.function.parsed}} for c in message.tool_calls
        ]
    return made


def _text(message: Message) -> str:
    """Return the text of a message. Ollama has no place for files: text is inserted, others are named."""
    if not any(isinstance(part, FilePart) for part in message.parts):
        return message.text
    texts = [_file(p) if isinstance(p, FilePart) else p.text for p in message.parts if not isinstance(p, ImagePart)]
    return "\n\n".join(texts)


def _file(part: FilePart) -> str:
    name = part.file.filename or "without a name"
    head, _, data = (part.file.file_data or "").partition(";base64,")
    if head.startswith("data:text/"):
        with suppress(ValueError):
            return f"File {name}:\n{b64decode(data, validate=True).decode()}"
    return f"[File {name}: its content is not available.]"


def _image(part: ImagePart) -> str:
    head, _, data = part.image_url.url.partition(";base64,")
    if not head.startswith("data:"):
        raise _unsupported("messages", "must have images as data URLs")
    try:
        b64decode(data, validate=True)
    except ValueError:
        raise _unsupported("messages", "must have images in base64") from None
    return data


def _unsupported(param: str, rule: str) -> ProviderError:
    message = f"{param} {rule} for provider ollama"
    return ProviderError("provider_rejected", message, provider_code="unsupported_value", param=param)
