"""Citations of an answer in the dialects of other families than its provider's.

Anthropic cites for a whole block of text, so a citation gets the positions of its block in the text. Responses cites
with positions in a part of the text, so a citation gets those in the whole text.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from shared.our_citations import our_citation
from shared.protocol.events import Event, Extra, Start, Token

_ADDRESS: Final = re.compile(r"https?://")
#: Media types of documents by the kind of the citation. Anthropic's kinds show it; a file of OpenAI's is unknown.
_MEDIA_TYPES: Final = {"page_location": "application/pdf", "char_location": "text/plain"}
_FILES: Final = frozenset({"file_citation", "container_file_citation", "file_path"})
_POSITIONS: Final = ("start_index", "end_index")
Body = dict[str, Any]


class Citations:
    """Citations of web pages in one answer. ``length``: characters of the text so far; the renderer counts them."""

    def __init__(self) -> None:
        self.length = 0
        self._start = 0
        self._open: list[Body] = []

    def take(self, event: Event) -> list[Body]:
        """Take an event that is no token. Return the citations of the block that ends before it, each with its
        positions: the members of OpenAI's ``url_citation``."""
        if isinstance(event, Extra):
            if (page := cited_page(event)) is not None:
                self._open.append(page)
            if event.family != "anthropic" or not event.data.keys() & {"open", "deltas"}:
                return []
        elif isinstance(event, Start | Token):
            return []
        positions = {"start_index": self._start, "end_index": self.length}
        ended, self._open = [{**positions, **page} for page in self._open], []
        self._start = self.length
        return ended

    def take_part(self, event: Event) -> list[Body]:
        """Take an event of a Responses upstream. Return its citation, with positions in the whole text."""
        if isinstance(event, Extra) and event.family == "responses":
            if event.data.keys() & {"open", "part"}:
                self._start = self.length
            for annotation in _annotations(event):
                if (page := _page(annotation)) is not None:
                    return [{**self._placed(annotation), **page}]
        return []

    def restart(self) -> None:
        """Count the characters of a new text."""
        self.length = self._start = 0

    def _placed(self, annotation: Body) -> Body:
        positions = {name: annotation.get(name) for name in _POSITIONS}
        return {name: self._start + at for name, at in positions.items() if isinstance(at, int)}


def cited_page(event: Extra) -> Body | None:
    """Return address and title of a web page that Anthropic cites with the event, or None."""
    return _page(_citation(event))


def pages_of(event: Extra) -> list[Body]:
    """Return all web pages that the event cites, also in annotations of OpenAI's formats."""
    cited = [_citation(event), *_annotations(event)]
    return [page for members in cited if (page := _page(members)) is not None]


def cited_document(event: Extra) -> Body | None:
    """Return media type and title of a document that the event cites, or None."""
    for annotation in _annotations(event):
        if annotation.get("type") in _FILES:
            return {"mediaType": "text/plain", "title": _title(annotation.get("filename")), **_filename(annotation)}
    citation = _citation(event)
    media_type = _MEDIA_TYPES.get(str(citation.get("type")))
    return None if media_type is None else {"mediaType": media_type, "title": _title(citation.get("document_title"))}


def anthropic_citations(event: Event) -> list[Body]:
    """Return the web pages that an upstream of OpenAI's formats cites, as citations of Anthropic's."""
    if not isinstance(event, Extra):
        return []
    pages = (_page(annotation) for annotation in _annotations(event))
    return [our_citation(page) for page in pages if page is not None]


def _annotations(event: Extra) -> Iterator[Body]:
    """Yield the annotations of an event of OpenAI's formats, in the form that Responses has."""
    match event:
        case Extra("responses", {"annotation": dict(annotation)}):
            yield annotation
        case Extra("openai", {"delta": {"annotations": list(annotations)}}):
            members = (each.get("url_citation") for each in annotations if isinstance(each, dict))
            yield from (each for each in members if isinstance(each, dict))


def _page(citation: Body) -> Body | None:
    url = citation.get("url") or citation.get("source")
    if not isinstance(url, str) or not _ADDRESS.match(url):
        return None
    title = citation.get("title")
    return {"url": url, "title": title if isinstance(title, str) else ""}


def _title(title: Any) -> str:
    return title if isinstance(title, str) and title else "Document"


def _filename(annotation: Body) -> Body:
    name = annotation.get("filename")
    return {"filename": name} if isinstance(name, str) and name else {}


def _citation(event: Extra) -> Body:
    match event:
        case Extra("anthropic", {"in": "text", "delta": {"type": "citations_delta", "citation": dict(citation)}}):
            return citation
    return {}
