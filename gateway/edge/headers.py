"""Header fields of every response."""

from typing import Final

Field = tuple[bytes, bytes]

#: Browsers must not guess that a response is a page or a script.
ALWAYS: Final[tuple[Field, ...]] = ((b"x-content-type-options", b"nosniff"),)
#: Default unless a response sets its own: prompts and answers belong in no cache.
NO_STORE: Final[Field] = (b"cache-control", b"no-store")


def with_defaults(fields: list[Field], request_id: str) -> list[Field]:
    """Return ``fields`` plus the defaults that they lack."""
    names = {name.lower() for name, _ in fields}
    return fields + [field for field in (*ALWAYS, NO_STORE, _request_id(request_id)) if field[0] not in names]


def _request_id(request_id: str) -> Field:
    """Return the field with the id under which the log has this request."""
    return b"x-request-id", request_id.encode()
