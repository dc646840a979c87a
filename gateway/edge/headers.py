"""Header fields that every answer has."""

from typing import Final

Field = tuple[bytes, bytes]

#: Nothing is guessed to be a page or a script.
ALWAYS: Final[tuple[Field, ...]] = ((b"x-content-type-options", b"nosniff"),)
#: Where an answer says nothing else: what a user asked and got is for no cache.
NO_STORE: Final[Field] = (b"cache-control", b"no-store")


def complete(fields: list[Field]) -> list[Field]:
    """``fields`` and what they lack."""
    names = {name.lower() for name, _ in fields}
    return fields + [field for field in (*ALWAYS, NO_STORE) if field[0] not in names]
