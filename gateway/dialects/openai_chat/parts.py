"""Content parts of Chat Completions in the canonical form."""

import mimetypes
from typing import Any, Final

from gateway.dialects.openai_chat.specific import Specific

_DETAILS: Final = frozenset({"auto", "low", "high", "original"})
_WITH_FILES: Final = frozenset({"user", "tool"})
_LONGEST_FILENAME: Final = 1024
_KNOWN: Final = frozenset({"type", "text", "refusal", "image_url", "file", "cache_control"})
#: Members of a response's message. Some clients copy all of them into a part of text.
_REPEATED: Final = frozenset(
    {
        *("annotations", "parsed", "role", "content", "tool_calls", "id", "audio"),
        *("reasoning_content", "reasoning", "reasoning_details", "thinking_blocks"),
    }
)


def content_of(message: dict[str, Any], role: Any, at: int, specific: Specific) -> Any:
    """Return a message's content, None if it has none. Its own cache breakpoint becomes that of the last part."""
    content = message.get("content")
    if isinstance(content, list):
        made = [_part(part, role, specific, ("messages", at, "content", n)) for n, part in enumerate(content)]
        content = [part for part in made if part is not None] or ""
    cache = message.get("cache_control")
    if not isinstance(cache, dict):
        return content
    if isinstance(content, str) and content:
        return [{"type": "text", "text": content, "cache_control": cache}]
    if isinstance(content, list) and isinstance(content[-1], dict):
        return [*content[:-1], {"cache_control": cache} | content[-1]]
    return content


def _part(part: Any, role: Any, specific: Specific, path: tuple[str | int, ...]) -> Any:
    """Return a part, None if it has no canonical form."""
    if not isinstance(part, dict) or not isinstance(kind := part.get("type"), str):
        return part
    made: dict[str, Any] | None = None
    match kind:
        case "text" | "input_text" | "output_text":
            made = {"type": "text", "text": part.get("text")}
        case "refusal":
            made = {"type": "text", "text": part.get("refusal")}
        case "image_url" if str(role) in _WITH_FILES:
            made = {"type": "image_url", "image_url": _image(part.get("image_url"), specific, path)}
        case "file" if str(role) in _WITH_FILES:
            made = _file(part.get("file"))
    if made is None:
        specific.add(*path)
        return None
    specific.add_others(part, _KNOWN | _REPEATED, *path)
    return made | ({"cache_control": part["cache_control"]} if isinstance(part.get("cache_control"), dict) else {})


def _image(image: Any, specific: Specific, path: tuple[str | int, ...]) -> Any:
    if isinstance(image, str):
        return {"url": image}
    if not isinstance(image, dict):
        return image
    made = {"url": image.get("url")}
    known = {"url"}
    if str(image.get("detail")) in _DETAILS:
        made["detail"] = image["detail"]
        known.add("detail")
    specific.add_others(image, known, *path, "image_url")
    return made


def _file(file: Any) -> dict[str, Any] | None:
    """Return a file with its data or its address, None for one that the provider already has (`file_id`)."""
    data = file.get("file_data") if isinstance(file, dict) else None
    if not isinstance(data, str) or not data:
        return None
    name = file.get("filename")
    named = {"filename": name} if isinstance(name, str) and len(name) <= _LONGEST_FILENAME else {}
    if data.startswith(("http://", "https://")):
        return {"type": "file", "file": {**named, "file_url": data}}
    if not data.startswith("data:"):
        kind = mimetypes.guess_type(named.get("filename", ""))[0] or "application/pdf"
        data = f"data:{kind};base64,{data}"
    return {"type": "file", "file": {**named, "file_data": data}}
