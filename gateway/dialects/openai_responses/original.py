"""A client's Responses request for an upstream of the same API."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

Body = dict[str, Any]
OWN: Final = frozenset(
    {
        *("provider", "fallbacks", "on_disconnect", "grace_s", "on_worker_lost", "on_provider_lost", "webhook_url"),
        "unsupported_fields",
    }
)
#: Fields about the delivery of the answer to this client. ``previous_response_id`` is mostly an id of the gateway's.
_DELIVERY: Final = frozenset({"stream", "background", "previous_response_id"})


def original_of(whole: Body, earlier: Sequence[Any], referred: Mapping[str, Body], base: str | None = None) -> Body:
    """Return the body as the upstream gets it: with the items of ``earlier`` responses before its input, and with the
    ``referred`` items instead of references, which the upstream cannot resolve. ``base``: id of a response of the
    upstream's own that is before all of them."""
    body = {name: value for name, value in whole.items() if name not in OWN | _DELIVERY}
    if base is not None:
        body["previous_response_id"] = base
    given = body.get("input")
    refers = isinstance(given, list) and any(map(_is_reference, given))
    if earlier or refers:
        own = as_items(given)
        body["input"] = [*earlier, *(referred.get(str(i.get("id")), i) if _is_reference(i) else i for i in own)]
    return body


def as_items(given: Any) -> list[Any]:
    """Return an input as a list of items."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return given if isinstance(given, list) else []


def _is_reference(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "item_reference"
