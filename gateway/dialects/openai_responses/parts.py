"""Content parts of a Responses request as canonical parts."""

import json
import mimetypes
from typing import Any, Final

from gateway.dialects.openai_responses.notes import Notes
from shared.errors import InvalidRequest

_DETAILS: Final = frozenset({"auto", "low", "high", "original"})
_SCHEMES: Final = ("https://", "http://", "data:image/")
_PDF: Final = "application/pdf"
Body = dict[str, Any]


def content_of(notes: Notes, path: str, content: Any, *, only_text: bool = False) -> Any:
    """Return the content of a message or of a tool's output; an empty text if nothing of it can be passed on.
    ``only_text``: images and files are left out. Raises :class:`InvalidRequest`."""
    match content:
        case str():
            return content
        case None:
            return ""
        case list():
            parts = [
                part
                for at, raw in enumerate(content)
                if (part := _part(notes, f"{path}.{at}", raw, only_text=only_text)) is not None
            ]
            return parts or ""
        case _:
            return json.dumps(content)


def _part(notes: Notes, path: str, part: Any, *, only_text: bool) -> Body | None:
    kind = part.get("type") if isinstance(part, dict) else None
    match kind:
        case "input_text" | "output_text" | "text" | "summary_text":
            return {"type": "text", "text": _text(path, part, "text")}
        case "refusal":
            return {"type": "text", "text": _text(path, part, "refusal")}
        case "input_image" if not only_text and part.get("image_url") is not None:
            return _image(path, part)
        case "input_file" if not only_text and (file := _file(path, part)) is not None:
            return {"type": "file", "file": file}
        case str():
            notes.drop(path)
            return None
    raise InvalidRequest(f"{path}.type: must be a string; use input_text")


def _text(path: str, part: Body, member: str) -> str:
    text = part.get(member)
    if not isinstance(text, str):
        raise InvalidRequest(f"{path}.{member}: must be a string")
    return text


def _image(path: str, part: Body) -> Body:
    url = part["image_url"]
    if not isinstance(url, str) or not url.startswith(_SCHEMES):
        raise InvalidRequest(f"{path}.image_url: must be an http(s) address or a data: URL of an image")
    detail = {"detail": part["detail"]} if str(part.get("detail")) in _DETAILS else {}
    return {"type": "image_url", "image_url": {"url": url, **detail}}


def _file(path: str, part: Body) -> Body | None:
    """Return the file, or None for one that only OpenAI has stored."""
    name, data, url = part.get("filename"), part.get("file_data"), part.get("file_url")
    named = {"filename": name} if isinstance(name, str) else {}
    if isinstance(data, str) and data:
        if not data.startswith("data:"):
            data = f"data:{(isinstance(name, str) and mimetypes.guess_type(name)[0]) or _PDF};base64,{data}"
        return {**named, "file_data": data}
    if isinstance(url, str) and url:
        if not url.startswith(_SCHEMES[:2]):
            raise InvalidRequest(f"{path}.file_url: must be an http(s) address")
        return {**named, "file_url": url}
    return None
