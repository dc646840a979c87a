"""Bytes that a new stream takes, as ``_content.lua`` counts them."""

from typing import Final

from shared.broker.scripts import Fields

STREAM_BYTES: Final = 5120
CONTENT: Final = frozenset({"request", "metadata", "shown", "response", "sources", "error"})


def size_of(fields: Fields) -> int:
    """Return the bytes of a stream with these fields, as they are stored, and an empty log."""
    content = (fields[name] for name in CONTENT & fields.keys())
    sizes = (len(value) if isinstance(value, bytes) else len(str(value).encode()) for value in content)
    return STREAM_BYTES + int(fields.get("request_bytes", 0)) + sum(sizes)
