"""Parser of requests from Vercel's AI SDK. A message is a ``UIMessage``, with the parts that a page shows."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from gateway.dialects.ai_sdk.messages import canonical_messages
from shared.errors import InvalidRequest
from shared.schemas import ChatRequest
from shared.schemas.chat import parse_json_object, validate

#: Fields of the canonical request that ``body`` of the SDK's transport may add.
_UNCHANGED: Final = frozenset(ChatRequest.model_fields) - {"messages", "only_count", "chat_id", "history"}
_TRANSLATED: Final = frozenset({"id", "messages", "trigger", "messageId", "system"})
_MAX_ID_LENGTH: Final = 256
#: Most names of ignored fields in the response, and the characters of each.
_MOST_IGNORED: Final = 32
_LONGEST_NAME: Final = 64
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """``message_id``: the message that the answer continues; None starts a new message. ``shown``: that message's
    parts so far. ``ignored``: names of fields that only the application reads, escaped as in a URL."""

    chat_id: str
    message_id: str | None
    shown: list[Body]
    ignored: tuple[str, ...]


def parse(body: bytes, default_model: str | None) -> tuple[ChatRequest, ChatOptions]:
    """Return the canonical request and the chat's options. Raises :class:`InvalidJson` and :class:`InvalidRequest`,
    which names the field."""
    raw = {name: value for name, value in parse_json_object(body).items() if value is not None}
    chat_id = _id(raw.get("id"), "id")
    if not isinstance(messages := raw.get("messages"), list):
        raise InvalidRequest("messages: must be a list of UIMessage objects")
    fields = {name: value for name, value in raw.items() if name in _UNCHANGED}
    if default_model is not None:
        fields.setdefault("model", default_model)
    system = [{"role": "system", "content": raw["system"]}] if "system" in raw else []
    fields["messages"] = [*system, *canonical_messages(messages)]
    chat_request = validate(ChatRequest, fields)
    message_id, shown = _continued(messages)
    return chat_request, ChatOptions(chat_id, message_id, shown, _ignored(raw, chat_request))


def check_chat_id(chat_id: str) -> str:
    """Return a valid chat id unchanged. Raises :class:`InvalidRequest`."""
    return _id(chat_id, "id")


def _ignored(raw: Body, chat_request: ChatRequest) -> tuple[str, ...]:
    """Return the fields that are not Headrace's: applications add their own for other backends."""
    names = [name[:_LONGEST_NAME] for name in raw if name not in _UNCHANGED | _TRANSLATED]
    if names and chat_request.unsupported_fields == "refuse":
        raise InvalidRequest(f"{names[0]}: not supported; remove the field")
    return tuple(quote(name.encode("utf-8", "replace")) for name in names[:_MOST_IGNORED])


def _continued(messages: list[Any]) -> tuple[str | None, list[Body]]:
    last = messages[-1] if messages else {}
    if last.get("role") == "assistant" and last.get("id"):
        return _id(last["id"], f"messages.{len(messages) - 1}.id"), last["parts"]
    return None, []


def _id(value: Any, name: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_ID_LENGTH:
        raise InvalidRequest(f"{name}: must be a string of 1 to {_MAX_ID_LENGTH} characters")
    return value
