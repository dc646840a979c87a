"""State of a claimed stream, kept by its worker for a Redis that loses it."""

from collections import deque
from collections.abc import Mapping, Sequence

from shared.broker.declarations import Call
from shared.broker.ending import restorable
from shared.broker.replies import Code, WriteReply
from shared.broker.scripts import Fields, Holder, StreamScripts
from shared.protocol.lineage import Lineage


class Restoration:
    """The calls that write a stream again, one at a time: first the pieces of a large request, then the restore.
    ``fields``: of the state, as they were claimed."""

    def __init__(self, scripts: StreamScripts, holder: Holder, fields: Mapping[str, bytes]) -> None:
        self._scripts = scripts
        self._holder = holder
        self._fields = dict(fields)
        self._begun: tuple[Fields, deque[Call[WriteReply]]] | None = None  # the pieces not stored yet

    def set_field(self, name: str, value: bytes | None) -> None:
        """Change a field that Redis has changed since the claim; None removes it."""
        if value is None:
            self._fields.pop(name, None)
        else:
            self._fields[name] = value
        self.begin()

    def begin(self) -> None:
        """Start from the first piece."""
        self._begun = None

    def next_call(self, written: Sequence[bytes], cursor: str, lineage: Lineage) -> Call[WriteReply]:
        """Return the call that stores the next piece, and after the last the restore. ``written``: all events so far.
        ``cursor``: the place in the provider's stored answer after them."""
        if self._begun is None:
            fields, pieces = self._scripts.split_request(self._holder.stream_id, restorable(self._fields))
            self._begun = fields, deque(pieces)
        fields, unstored = self._begun
        if unstored:
            return unstored[0]
        if written or cursor:  # else the cursor of the attempt before counts
            fields = {**fields, "provider_cursor": cursor or "-"}
        body_hash = self._fields["body_hash"].decode()
        return self._scripts.restore(self._holder, written, fields=fields, body_hash=body_hash, lineage=lineage)

    def settle_piece(self, reply: WriteReply) -> None:
        """Handle the reply STORED or UNSTORED."""
        if reply.code is Code.UNSTORED:  # Redis has lost pieces since
            self.begin()
        elif self._begun is not None and self._begun[1]:
            self._begun[1].popleft()
