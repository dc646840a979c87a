"""Header fields that every answer has."""

from typing import Final

Field = tuple[bytes, bytes]

#: Nothing is guessed to be a page or a script.
ALWAYS: Final[tuple[Field, ...]] = ((b"x-content-type-options", b"nosniff"),)
#: Where an answer says nothing else: what a user asked and got is for no cache.
NO_STORE: Final[Field] = (b"cache-control", b"no-store")


def complete(fields: list[Field], request_id: str) -> list[Field]:
    """``fields`` and what they lack."""
    names = {name.lower() for name, _ in fields}
    return fields + [field for field in (*ALWAYS, NO_STORE, _request(request_id)) if field[0] not in names]


def _request(request_id: str) -> Field:
    """What the log has of this request under that id."""
    return b"x-request-id", request_id.encode()
