"""Citations that the gateway makes for Messages clients from those of another provider family.

``encrypted_index`` is empty, because no search of Anthropic's has found the page. Anthropic would refuse such a
citation in a conversation, so it is left out there.
"""

from typing import Any, Final

_KIND: Final = "web_search_result_location"


def our_citation(page: dict[str, Any]) -> dict[str, Any]:
    """Return the citation of a web page with ``url`` and ``title``."""
    return {"type": _KIND, **page, "encrypted_index": "", "cited_text": ""}


def is_our_citation(citation: Any) -> bool:
    """Return True for a citation that the gateway has made."""
    if not isinstance(citation, dict):
        return False
    return citation.get("type") == _KIND and citation.get("encrypted_index") == ""
