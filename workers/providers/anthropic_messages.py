"""Converts canonical messages to Anthropic's."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from shared.schemas import FilePart, ImagePart, Message, TextPart
from workers.providers.substitutes import Substitutes, anthropic_call_ids
from workers.providers.unpaired_calls import EARLIER_RESULT, missing_results

Body = dict[str, Any]


def system_of(messages: Sequence[Message]) -> str | list[Body] | None:
    """Return the system prompt: blocks if a part of it has a cache breakpoint, else one text."""
    parts = [part for message in messages if message.role == "system" for part in message.parts]
    if any(part.cache_control for part in parts):
        return [_part(part) for part in parts if not _is_blank(part)]
    return "\n\n".join(m.text for m in messages if m.role == "system") or None


def messages_of(messages: Sequence[Message], names: Substitutes) -> list[Body]:
    """Convert the messages but the system's. The API requires the results of parallel calls in one message after
    their calls, a result for each call, and no blank text beside other content."""
    ids = anthropic_call_ids()
    groups = [(role, list(group)) for role, group in groupby(_chat(messages), lambda message: message.role)]
    made: list[Body] = []
    open_calls: list[str] = []
    for role, group in groups:
        if role == "tool":
            made.append({"role": "user", "content": _results(group, open_calls, ids)})
            open_calls = []
            continue
        for message in group:
            made += _unanswered(open_calls, ids)
            open_calls = [call.id for call in message.tool_calls or ()]
            if content := _content(message, names, ids):
                made.append({"role": role, "content": content})
    made += _unanswered(open_calls, ids)
    return made or [{"role": message.role, "content": message.text} for message in _chat(messages)]


def has_signed_thinking(messages: Sequence[Message]) -> bool:
    """Return True if the last assistant's message begins with thinking that Anthropic signed."""
    last = next((message for message in reversed(messages) if message.role == "assistant"), None)
    return last is not None and bool(_thinking(last))


def _chat(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message.role != "system"]


def _unanswered(open_calls: list[str], ids: Substitutes) -> list[Body]:
    """Return the message that follows calls without a result."""
    return [{"role": "user", "content": missing_results(map(ids.of, open_calls))}] if open_calls else []


def _content(message: Message, names: Substitutes, ids: Substitutes) -> str | list[Body]:
    blocks = _thinking(message)
    if isinstance(message.content, str) and not message.tool_calls and not blocks:
        return message.content
    blocks = [*blocks, *(_part(part) for part in message.parts if not _is_blank(part))]
    for call in message.tool_calls or ():
        name, arguments = names.of(call.function.name), call.function.parsed
        own = (call.extra or {}).get("anthropic", {})
        blocks.append({"type": "tool_use", "id": ids.of(call.id), "name": name, "input": arguments, **own})
    return blocks


def _thinking(message: Message) -> list[Body]:
    blocks = (message.extra or {}).get("anthropic", {}).get("blocks")
    return [block for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []


def _results(group: Sequence[Message], open_calls: list[str], ids: Substitutes) -> list[Body]:
    """Return the results of the calls before them, then the others as text."""
    results: dict[str, Body] = {}
    orphans: list[Body] = []
    for message in group:
        id = str(message.tool_call_id)
        if id in open_calls and id not in results:
            results[id] = _result(message, ids)
        else:
            orphans += [{"type": "text", "text": EARLIER_RESULT}]
            orphans += [_part(part) for part in message.parts if not _is_blank(part)]
    missing = missing_results(ids.of(id) for id in open_calls if id not in results)
    return [*results.values(), *missing, *orphans]


def _result(message: Message, ids: Substitutes) -> Body:
    is_plain = all(isinstance(part, TextPart) and not part.cache_control for part in message.parts)
    parts = [_part(part) for part in message.parts if not _is_blank(part)]
    result: Body = {
        "type": "tool_result",
        "tool_use_id": ids.of(str(message.tool_call_id)),
        "content": message.text if is_plain else parts,
    }
    return result | ({"is_error": True} if message.is_error else {})


def _is_blank(part: TextPart | ImagePart | FilePart) -> bool:
    return isinstance(part, TextPart) and not part.text.strip()


def _part(part: TextPart | ImagePart | FilePart) -> Body:
    match part:
        case TextPart():
            block: Body = {"type": "text", "text": part.text}
        case ImagePart():
            block = {"type": "image", "source": _source(part.image_url.url)}
        case FilePart():
            url = part.file.file_data or str(part.file.file_url)
            title = {"title": part.file.filename} if part.file.filename else {}
            block = {"type": "document", "source": _source(url), **title}
    return block | ({"cache_control": part.cache_control} if part.cache_control else {})


def _source(url: str) -> Body:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    kind, _, data = url.removeprefix("data:").partition(";base64,")
    return {"type": "base64", "media_type": kind, "data": data}
