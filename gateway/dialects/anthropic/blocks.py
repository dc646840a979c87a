"""Content blocks of a Messages request as canonical parts."""

import re
from collections.abc import Iterator
from typing import Any, Final

from gateway.dialects.anthropic.specific_paths import SpecificPaths
from shared.errors import InvalidRequest
from shared.our_citations import is_our_citation

#: Most parts of a canonical message.
MOST_PARTS: Final = 256
_LONGEST_TITLE: Final = 1024
_IMAGE_TYPE: Final = re.compile(r"image/[a-z0-9.+-]+")
_FILE_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_ADDRESS: Final = re.compile(r"https?://")
Body = dict[str, Any]


def parts_of(path: str, content: Any, specific: SpecificPaths) -> list[Body]:
    """Return the parts of a content. ``path``: that of the content. Raises :class:`InvalidRequest` for a content
    that is neither a text nor a list of blocks."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    parts: list[Body] = []
    for block_path, block in blocks_of(path, content):
        parts += part_of(block_path, block, specific)
    return parts


def blocks_of(path: str, content: Any) -> Iterator[tuple[str, Body]]:
    """Yield the blocks of a content with their paths. Raises as :func:`parts_of` does."""
    if not isinstance(content, list):
        raise InvalidRequest(f"{path}: must be a text or a list of blocks")
    for at, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise InvalidRequest(f"{path}.{at}.type: must be a text")
        yield f"{path}.{at}", block


def in_batches(parts: list[Body]) -> Iterator[list[Body]]:
    """Yield the parts in lists that a canonical message may have."""
    for at in range(0, len(parts), MOST_PARTS):
        yield parts[at : at + MOST_PARTS]


def part_of(path: str, block: Body, specific: SpecificPaths) -> list[Body]:
    """Return the part of a block, or nothing for a block without a canonical counterpart."""
    match block["type"]:
        case "text":
            return _text(path, block, specific)
        case "image":
            made = _image(block.get("source"))
            known = {"type", "source", "cache_control"}
        case "document":
            made = _document(block)
            known = {"type", "source", "cache_control", "title"}
        case "search_result":
            made = _search_result(block)
            known = {"type", "source", "cache_control", "title", "content"}
        case _:
            made, known = None, set()
    if made is None:
        specific.note(path)
        return []
    specific.note_others(f"{path}.", block, known)
    return [with_cache_control(path, made, block, specific)]


def with_cache_control(path: str, part: Body, block: Body, specific: SpecificPaths) -> Body:
    """Return the part with the cache breakpoint of its block."""
    match block.get("cache_control"):
        case None:
            return part
        case dict(cache_control):
            return part | {"cache_control": cache_control}
    specific.note(f"{path}.cache_control")
    return part


def _text(path: str, block: Body, specific: SpecificPaths) -> list[Body]:
    text = block.get("text")
    if not isinstance(text, str):
        raise InvalidRequest(f"{path}.text: must be a text")
    known = {"type", "text", "cache_control", *(("citations",) if _are_ours(block.get("citations")) else ())}
    specific.note_others(f"{path}.", block, known)
    return [with_cache_control(path, {"type": "text", "text": text}, block, specific)]


def _are_ours(citations: Any) -> bool:
    """Return True for citations that the gateway has made: no provider reads them."""
    return isinstance(citations, list) and all(map(is_our_citation, citations))


def _image(source: Any) -> Body | None:
    match source:
        case {"type": "base64", "media_type": str(kind), "data": str(data)} if _IMAGE_TYPE.fullmatch(kind):
            return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
        case {"type": "url", "url": str(url)} if _ADDRESS.match(url):
            return {"type": "image_url", "image_url": {"url": url}}
    return None


def _document(block: Body) -> Body | None:
    title = block.get("title")
    name: Body = {"filename": title} if isinstance(title, str) and len(title) <= _LONGEST_TITLE else {}
    match block.get("source"):
        case {"type": "base64", "media_type": str(kind), "data": str(data)} if _FILE_TYPE.fullmatch(kind):
            return {"type": "file", "file": {"file_data": f"data:{kind};base64,{data}", **name}}
        case {"type": "url", "url": str(url)} if _ADDRESS.match(url):
            return {"type": "file", "file": {"file_url": url, **name}}
        case {"type": "text", "data": str(text)}:
            return _titled(title, [text])
        case {"type": "content", "content": str(text)}:
            return _titled(title, [text])
        case {"type": "content", "content": list(blocks)}:
            return _titled(title, _texts(blocks))
    return None


def _search_result(block: Body) -> Body | None:
    content, source = block.get("content"), block.get("source")
    texts = _texts(content) if isinstance(content, list) else []
    return _titled(block.get("title"), [source, *texts] if isinstance(source, str) else texts)


def _texts(blocks: list[Any]) -> list[str]:
    return [text for block in blocks if isinstance(block, dict) and isinstance(text := block.get("text"), str)]


def _titled(title: object, texts: list[str]) -> Body | None:
    whole = "\n\n".join([title, *texts] if isinstance(title, str) and title else texts)
    return {"type": "text", "text": whole} if whole else None
