"""The request as Redis stores it: canonical fields, and the original without the texts that are in both.

A text of the canonical fields that the original has too is stored as ``{"$": [number]}``: the position among the long
texts of the original. ``{"$": [number, prefix]}`` stands for a ``data:`` URL whose data the original has by itself.
"""

from collections.abc import Iterator
from typing import Any, Final

import pydantic_core

from shared.errors import InvalidRequest
from shared.schemas.chat import ChatRequest, StoredRequest, parse_stored_object, validate
from shared.schemas.request_budget import RequestBudget

_MARK: Final = "$"
#: Shorter texts are not worth a reference.
_LONG: Final = 64
_BASE64: Final = ";base64,"
#: Before the name of each target of a request whose answer must be watched. No provider can have such a name, so that
#: a worker of 0.2, which does not know hooks, ends the stream with ``provider_not_configured`` and calls nobody.
_WATCHED: Final = "hooks:"


def encode_request(request: ChatRequest, *, is_watched: bool = False) -> bytes:
    """Return the request's stored form. ``is_watched``: no worker without hooks may answer it."""
    original = request.original if isinstance(request, StoredRequest) else None
    # The class is in the state: a worker of an older version would refuse a field that it does not know.
    fields = request.model_dump(mode="json", exclude_none=True, exclude={"original", "priority"})
    if is_watched:
        fields["provider"] = _WATCHED + fields.get("provider", "")
        fields |= {"fallbacks": [_WATCHED + each for each in fields["fallbacks"]]} if "fallbacks" in fields else {}
    if original is None:
        return pydantic_core.to_json(fields)
    positions: dict[str, int] = {}
    for text in _long_texts(original.body):
        positions.setdefault(text, len(positions))
    stored = _packed(fields, positions) | {"original": original.model_dump(mode="json", exclude={"body"})}
    stored["original"]["body"] = original.body
    return pydantic_core.to_json(stored)


def parts_of(request: ChatRequest) -> Iterator[bytes]:
    """Yield JSON texts that distinguish the request from others, about one for each message. Writing a large request
    as one text would keep all other threads waiting."""
    yield request.model_dump_json(exclude_none=True, exclude={"messages", "original"}).encode()
    for message in request.messages:
        yield message.model_dump_json(exclude_none=True).encode()
    if isinstance(request, StoredRequest) and request.original is not None:
        yield request.original.model_dump_json(exclude={"body"}).encode()
        for name, value in request.original.body.items():
            yield pydantic_core.to_json([name, isinstance(value, list)])
            yield from map(pydantic_core.to_json, value if isinstance(value, list) else [value])


def decode_request(stored: bytes) -> StoredRequest:
    """Return a stored request. Its schemas were checked before it was stored, so they are not checked again. Raises
    :class:`InvalidJson` and :class:`InvalidRequest`."""
    fields = parse_stored_object(stored)
    original = fields.get("original")
    if original is not None:
        try:
            texts = list(dict.fromkeys(_long_texts(original["body"])))
            fields = {**_unpacked({n: v for n, v in fields.items() if n != "original"}, texts), "original": original}
        except (IndexError, KeyError, TypeError) as error:
            raise InvalidRequest("original: damaged; send the request again") from error
    return validate(StoredRequest, _with_plain_targets(fields), RequestBudget(checks_schemas=False))


def _with_plain_targets(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request with the names of its targets as they were given."""
    match fields:
        case {"provider": str(provider)} if provider.startswith(_WATCHED):
            plain = {**fields, "provider": provider.removeprefix(_WATCHED) or None}
            if "fallbacks" in fields:
                plain["fallbacks"] = [str(each).removeprefix(_WATCHED) for each in fields["fallbacks"]]
            return plain
    return fields


def stored_messages(stored: bytes) -> list[dict[str, Any]]:
    """Return the messages of a stored request as plain objects."""
    return _messages_of(decode_request(stored))


def stored_conversation(stored: bytes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the messages of a stored request, and the body of its original; empty if it has none."""
    request = decode_request(stored)
    return _messages_of(request), request.original.body if request.original is not None else {}


def _messages_of(request: StoredRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = request.model_dump(mode="json", include={"messages"}, exclude_none=True)[
        "messages"
    ]
    return messages


def _long_texts(value: Any) -> list[str]:
    texts, waiting = [], [value]
    while waiting:
        match waiting.pop():
            case str() as text if len(text) >= _LONG:
                texts.append(text)
            case dict() as members:
                waiting += members.values()
            case list() as items:
                waiting += items
    return texts


def _packed(value: Any, positions: dict[str, int]) -> Any:
    match value:
        case str() if len(value) >= _LONG:
            if (at := positions.get(value)) is not None:
                return {_MARK: [at]}
            head, found, data = value.partition(_BASE64)
            if found and (at := positions.get(data)) is not None:
                return {_MARK: [at, head + _BASE64]}
        case dict():
            packed = {name: _packed(member, positions) for name, member in value.items()}
            return {_MARK: packed} if _MARK in packed else packed
        case list():
            return [_packed(item, positions) for item in value]
    return value


def _unpacked(value: Any, texts: list[str]) -> Any:
    match value:
        case {"$": [int(at)]} if len(value) == 1:
            return texts[at]
        case {"$": [int(at), str(head)]} if len(value) == 1:
            return head + texts[at]
        case {"$": dict(escaped)} if len(value) == 1:
            return {name: _unpacked(member, texts) for name, member in escaped.items()}
        case dict():
            return {name: _unpacked(member, texts) for name, member in value.items()}
        case list():
            return [_unpacked(item, texts) for item in value]
    return value
