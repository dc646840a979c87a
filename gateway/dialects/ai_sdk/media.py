"""Files and tool results of UI messages, as canonical content."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from shared.errors import InvalidRequest

Body = dict[str, Any]
_ADDRESS: Final = re.compile(r"https?://")
_DATA: Final = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,")
_REMEDY: Final = "send an http or https address, or a data URL in base64"
#: Types of parts that a tool's model output may have for a file, in the SDK's versions 5 to 7 and in MCP.
_FILES: Final = frozenset(
    {
        "media",
        "file",
        "image",
        "audio",
        "file-data",
        "file-url",
        "image-data",
        "image-url",
        "file-id",
        "image-file-id",
    }
)


def file_part(path: str, part: Body) -> Body:
    """Return the canonical part of a file. Raises :class:`InvalidRequest`, which names the field."""
    media_type = part.get("mediaType")
    if not isinstance(media_type, str):
        raise InvalidRequest(f"{path}.mediaType: must be a string")
    url = part.get("url")
    return canonical_file(f"{path}.url", media_type, url if isinstance(url, str) else "", part.get("filename"))


def canonical_file(path: str, media_type: str, url: str, filename: Any) -> Body:
    """Return the canonical part of a file at ``url``. Raises :class:`InvalidRequest`, which names ``path``."""
    if not (_ADDRESS.match(url) or _DATA.match(url)):
        raise InvalidRequest(f"{path}: not supported; {_REMEDY}")
    return _file(media_type, url, filename)


def result_content(path: str, output: Any) -> str | list[Body]:
    """Return the canonical content of a tool's output. Content parts, as ``toModelOutput`` and MCP have them, become
    text, images and files; another output becomes its JSON. Raises :class:`InvalidRequest`."""
    match output:
        case str():
            return output
        case {"type": "content", "value": [_, *_] as items} if _are_parts(items):
            return list(_result_parts(f"{path}.value", items))
        case {"content": [_, *_] as items} if _are_parts(items) and any(item["type"] in _FILES for item in items):
            return list(_result_parts(f"{path}.content", items))
    return json.dumps(output)


def _are_parts(items: list[Any]) -> bool:
    return all(isinstance(item, dict) and isinstance(item.get("type"), str) for item in items)


def _result_parts(path: str, items: list[Body]) -> Iterator[Body]:
    for at, item in enumerate(items):
        if item["type"] == "text" and isinstance(item.get("text"), str):
            yield {"type": "text", "text": item["text"]}
        elif item["type"] in _FILES:
            yield _result_file(f"{path}.{at}", item)
        else:  # a part of the client's own
            yield {"type": "text", "text": json.dumps(item)}


def _result_file(path: str, item: Body) -> Body:
    media_type = item.get("mediaType") or item.get("mimeType")
    if not isinstance(media_type, str):
        media_type = "image/*" if item["type"] == "image-url" else ""
    data = item.get("url") or item.get("data")
    if isinstance(data, dict):  # {"type": "data", "data": …} or {"type": "url", "url": …}
        data = data.get("url") or data.get("data")
    if not isinstance(data, str):
        raise InvalidRequest(f"{path}: has no data; {_REMEDY}")
    url = data if _ADDRESS.match(data) or data.startswith("data:") else f"data:{media_type};base64,{data}"
    if not (_ADDRESS.match(url) or _DATA.match(url)):
        raise InvalidRequest(f"{path}.mediaType: must be a media type such as image/png")
    return _file(media_type, url, item.get("filename"))


def _file(media_type: str, url: str, filename: Any) -> Body:
    is_data = url.startswith("data:")
    kind = url.removeprefix("data:") if is_data else media_type
    if kind.partition("/")[0] == "image":
        return {"type": "image_url", "image_url": {"url": url}}
    name = {"filename": filename} if isinstance(filename, str) else {}
    return {"type": "file", "file": {**name, "file_data" if is_data else "file_url": url}}
