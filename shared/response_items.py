"""Names and ids of items of OpenAI's Responses, as the gateway and the workers agree on them.

A client gets item ids of the gateway's own: ``msg_<stream id>_<number>``. After a dot they carry the id that the
upstream gave the item, if the upstream speaks Responses too. Upstreams check that id: encrypted reasoning belongs to
its item.
"""

import re
from typing import Final

#: Argument of the function that a custom tool is offered as.
INPUT: Final = "input"
#: Name of the function that a client's own search for tools is offered as.
TOOL_SEARCH: Final = "tool_search"
#: Beginning of reasoning that the gateway has packed for a client of another dialect.
PACKED_PREFIX: Final = "headrace1."
_OURS: Final = re.compile(r"[a-z]+_([0-9a-f]{34})_[0-9]{1,9}(?:\.(.+))?", re.DOTALL)


def item_id(prefix: str, stream_id: str, number: int, upstream: object = None) -> str:
    """Return the id of an item. ``upstream``: the id that the upstream gave it, if any."""
    own = f"{prefix}_{stream_id}_{number}"
    return f"{own}.{upstream}" if isinstance(upstream, str) and upstream else own


def stream_of(item_id: str) -> str | None:
    """Return the stream that an item belongs to, or None if the id is not the gateway's."""
    found = _OURS.fullmatch(item_id)
    return found[1] if found else None


def upstream_id(item_id: str) -> str | None:
    """Return the upstream's own id of an item, or None if the gateway made the item."""
    found = _OURS.fullmatch(item_id)
    return found[2] if found else item_id


def function_name(namespace: str | None, name: str) -> str:
    """Return the name of the function that a tool of a namespace is offered as."""
    if namespace is None:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"
