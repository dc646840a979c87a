"""Inputs that a connection keeps in memory, so that a request with ``store: false`` can continue the response before
it. They end with their connection, and are in no storage.

Each response keeps its new items only, after those of the response that it continued. All connections of a gateway
share one budget. Above it the connection that was used longest ago loses its inputs: its client is told that the
response is not found, and sends the whole input again.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from gateway.dialects.openai_responses.original import as_items
from shared.schemas.chat import parse_json_object

#: Part of the budget that one connection may have.
_MOST_PART: Final = 4
#: Counted for each input besides its items: a client may keep any number of inputs without items.
INPUT_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class KeptInput:
    """Input of one response: ``items`` as JSON, separated by commas, after those of ``before``. ``has_output``: False
    for a request that was only prepared."""

    before: "KeptInput | None"
    items: bytes
    has_output: bool = True

    @property
    def size(self) -> int:
        """Bytes to count for this input, without those before it."""
        return INPUT_BYTES + len(self.items)

    def after(self, earlier: list[Any]) -> "KeptInput":
        """Return an input that keeps the items of stored responses itself, before its own."""
        items = filter(None, (msgspec.json.encode(earlier)[1:-1], self.items))
        return replace(self, before=None, items=b",".join(items))

    def chain(self) -> Iterator[bytes]:
        """Yield the items of the whole conversation, in order."""
        found: list[bytes] = []
        node: KeptInput | None = self
        while node is not None:
            found.append(node.items)
            node = node.before
        yield from reversed(found)


class KeptInputs:
    """The inputs of all connections. ``most_bytes``: their budget."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._size = 0
        self._connections: OrderedDict[ConnectionInputs, None] = OrderedDict()  # the longest unused first

    def connection(self) -> "ConnectionInputs":
        return ConnectionInputs(self)

    def used(self, connection: "ConnectionInputs", size: int) -> None:
        """Note that a connection keeps ``size`` more bytes, and make room for them."""
        self._connections[connection] = None
        self._connections.move_to_end(connection)
        self._size += size
        if connection.size > self._most_bytes // _MOST_PART:
            connection.forget()
        while self._size > self._most_bytes:
            next(iter(self._connections)).forget()

    def forgotten(self, connection: "ConnectionInputs", size: int) -> None:
        self._connections.pop(connection, None)
        self._size -= size


class ConnectionInputs:
    """The inputs of one connection, by the id of their response."""

    def __init__(self, inputs: KeptInputs) -> None:
        self.size = 0
        self._inputs = inputs
        self._kept: dict[str, KeptInput] = {}

    def find(self, response_id: str | None) -> KeptInput | None:
        return None if response_id is None else self._kept.get(response_id)

    def keep(self, response_id: str, kept: KeptInput) -> None:
        self.drop(response_id)  # kept already if a frame with its key came twice
        self._kept[response_id] = kept
        self.size += kept.size
        self._inputs.used(self, kept.size)

    def drop(self, response_id: str) -> None:
        """Forget the input of one response: it has not ended well."""
        if (kept := self._kept.pop(response_id, None)) is not None:
            self.size -= kept.size
            self._inputs.used(self, -kept.size)

    def forget(self) -> None:
        size, self.size = self.size, 0
        self._kept.clear()
        self._inputs.forgotten(self, size)


def continued(body: bytes, before: KeptInput | None, output: list[dict[str, Any]]) -> tuple[bytes, KeptInput]:
    """Return the body with the whole conversation as its input, and the part to keep. ``output``: the items of the
    response that it continues. Raises like :func:`parse_json_object`."""
    parse_json_object(body)
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    given = msgspec.json.decode(members["input"]) if "input" in members else []
    items = msgspec.json.encode([*output, *as_items(given)])[1:-1]
    kept = KeptInput(before, items)
    if before is None:
        return body, kept
    if given is None or isinstance(given, str | list):  # anything else is refused later
        members["input"] = msgspec.Raw(b"[%b]" % b",".join(filter(None, kept.chain())))
    members.pop("previous_response_id", None)
    return msgspec.json.encode(members), kept
