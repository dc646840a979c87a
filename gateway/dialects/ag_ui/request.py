"""Parser of AG-UI's ``RunAgentInput``."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import msgspec

from gateway.dialects.ag_ui.messages import canonical_messages
from gateway.dialects.field_paths import Placed, client_path
from shared.errors import InvalidRequest
from shared.protocol.ids import is_stream_id
from shared.schemas import ChatRequest
from shared.schemas.chat import parse_json_object, validate

#: Fields of the canonical request that ``forwardedProps`` may have.
_FORWARDED: Final = frozenset(ChatRequest.model_fields) - {
    *("messages", "tools", "only_count", "chat_id", "history", "stream"),
}
_TRANSLATED: Final = frozenset(
    {"threadId", "runId", "messages", "tools", "context", "forwardedProps", "protocolVersion"}
)
_MAX_ID_LENGTH: Final = 256
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
#: The client's names of fields and of members of a tool.
_NAMES: Final = {name: f"forwardedProps.{name}" for name in _FORWARDED}
_TOOL_NAMES: Final = {f"function.{name}": name for name in ("name", "description", "parameters")} | {"function": ""}
#: Most bytes of a request's messages that are stored as the client sent them.
_MOST_STORED: Final = 64 * 1024
#: Most names of ignored fields in the response, and the characters of each.
_MOST_IGNORED: Final = 32
_LONGEST_NAME: Final = 64
#: End of the ids of an answer's messages, after the run's id; another run's id may begin with the same.
_OF_ANSWER: Final = re.compile(r"[0-9]+(/r[0-9]+)?\Z")
_CONTEXT: Final = "Context from the application:"
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunInput:
    """``messages``: as the client sent them, in JSON; None if they are too large to be stored again. ``ignored``:
    names of fields without effect, escaped as in a URL."""

    thread_id: str
    run_id: str
    messages: str | None
    ignored: tuple[str, ...]


def parse(body: bytes, default_model: str | None) -> tuple[ChatRequest, RunInput]:
    """Return the canonical request, and the run's ids and messages. Raises :class:`InvalidJson` and
    :class:`InvalidRequest`, which names the field."""
    raw = {name: value for name, value in parse_json_object(body).items() if value is not None}
    thread_id, run_id = _id(raw, "threadId"), _id(raw, "runId")
    if is_stream_id(run_id):
        raise InvalidRequest("runId: has the form of a stream id; send another id, such as a UUID")
    messages = _before_run(raw.get("messages"), run_id)
    forwarded = raw.get("forwardedProps", {})
    props = forwarded if isinstance(forwarded, dict) else {}
    fields = {name: value for name, value in props.items() if name in _FORWARDED and value is not None}
    if default_model is not None:
        fields.setdefault("model", default_model)
    if tools := _list(raw, "tools"):
        fields["tools"] = [_tool(f"tools.{at}", tool) for at, tool in enumerate(tools)]
    fields["messages"] = [*_with_context(list(canonical_messages(messages)), _list(raw, "context"))]
    chat_request = validate(ChatRequest, fields, path_of=client_path(fields, _NAMES))
    stored = msgspec.json.encode(messages)
    kept = stored.decode() if len(stored) <= _MOST_STORED else None
    return chat_request, RunInput(thread_id, run_id, kept, _ignored(raw, forwarded, chat_request))


def _before_run(messages: Any, run_id: str) -> list[Any]:
    """Return the messages without those of the run itself: a client that repeats a request may have a part of the
    answer."""
    if not isinstance(messages, list):
        raise InvalidRequest("messages: must be a list of AG-UI messages")
    end = len(messages)
    while end and _is_of_run(messages[end - 1], run_id):
        end -= 1
    return messages[:end]


def _is_of_run(message: Any, run_id: str) -> bool:
    if not (isinstance(message, dict) and message.get("role") in ("assistant", "reasoning")):
        return False
    begins, _, rest = str(message.get("id")).partition(f"{run_id}/")
    return not begins and _OF_ANSWER.match(rest) is not None


def _with_context(messages: list[Body], context: list[Any]) -> Iterator[Body]:
    """Yield the messages, with the application's context as a system message after those at the beginning."""
    first = next((at for at, each in enumerate(messages) if each["role"] != "system"), len(messages))
    yield from messages[:first]
    if context:
        texts = [_described(f"context.{at}", each) for at, each in enumerate(context)]
        yield Placed("context", {"role": "system", "content": "\n\n".join([_CONTEXT, *texts])})
    yield from messages[first:]


def _described(path: str, entry: Any) -> str:
    match entry:
        case {"description": str(description), "value": str(value)}:
            return f"{description}:\n{value}"
    raise InvalidRequest(f"{path}: must have a description and a value, both strings")


def _tool(path: str, tool: Any) -> Body:
    if not isinstance(tool, dict):
        raise InvalidRequest(f"{path}: must be an object")
    members = {name: tool.get(name) for name in ("name", "description", "parameters")}
    function = {name: value for name, value in members.items() if value is not None}
    return Placed(path, {"type": "function", "function": function}, _TOOL_NAMES)


def _ignored(raw: Body, forwarded: Any, chat_request: ChatRequest) -> tuple[str, ...]:
    """Return the fields that a chat does not have, and the application's own ones."""
    names = [name for name, value in raw.items() if name not in _TRANSLATED and value not in ({}, [], "")]
    if isinstance(forwarded, dict):
        names += [f"forwardedProps.{name}" for name in forwarded if name not in _FORWARDED]
    else:
        names.append("forwardedProps")
    if names and chat_request.unsupported_fields == "refuse":
        raise InvalidRequest(f"{names[0][:_LONGEST_NAME]}: not supported; remove the field")
    return tuple(quote(name[:_LONGEST_NAME].encode("utf-8", "replace")) for name in names[:_MOST_IGNORED])


def _list(raw: Body, name: str) -> list[Any]:
    value = raw.get(name, [])
    if not isinstance(value, list):
        raise InvalidRequest(f"{name}: must be a list")
    return value


def _id(raw: Body, name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_ID_LENGTH:
        raise InvalidRequest(f"{name}: must be a string of 1 to {_MAX_ID_LENGTH} characters")
    if _CONTROL.search(value):  # U+0000 separates the two ids of a run, and no route has a line break
        raise InvalidRequest(f"{name}: must not contain control characters; send another id, such as a UUID")
    return value
