"""Citations of an answer in the dialects of other families than Anthropic's.

Anthropic cites for a whole block of text, so a citation gets the positions of its block in the text.
"""

import re
from typing import Any, Final

from shared.protocol.events import Event, Extra, Start, Token

_ADDRESS: Final = re.compile(r"https?://")
#: Media types of documents by the kind of the citation, if the citation shows it.
_MEDIA_TYPES: Final = {"page_location": "application/pdf", "char_location": "text/plain"}
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

    def restart(self) -> None:
        """Count the characters of a new text."""
        self.length = self._start = 0


def cited_page(event: Extra) -> Body | None:
    """Return address and title of a web page that the event cites, or None."""
    return _page(_citation(event))


def _page(citation: Body) -> Body | None:
    url = citation.get("url") or citation.get("source")
    if not isinstance(url, str) or not _ADDRESS.match(url):
        return None
    title = citation.get("title")
    return {"url": url, "title": title if isinstance(title, str) else ""}


def pages_of(event: Extra) -> list[Body]:
    """Return all web pages that the event cites, also in annotations of OpenAI's format."""
    match event:
        case Extra("openai", {"delta": {"annotations": list(annotations)}}):
            cited = [a.get("url_citation") for a in annotations if isinstance(a, dict)]
            return [page for members in cited if isinstance(members, dict) and (page := _page(members)) is not None]
    page = cited_page(event)
    return [] if page is None else [page]


def cited_document(event: Extra) -> Body | None:
    """Return media type and title of a document that the event cites, or None."""
    citation = _citation(event)
    media_type = _MEDIA_TYPES.get(str(citation.get("type")))
    title = citation.get("document_title")
    if media_type is None:
        return None
    return {"mediaType": media_type, "title": title if isinstance(title, str) and title else "Document"}


def _citation(event: Extra) -> Body:
    match event:
        case Extra("anthropic", {"in": "text", "delta": {"type": "citations_delta", "citation": dict(citation)}}):
            return citation
    return {}
