"""The desk's part of a stream that this worker holds: its place, its slots and its bytes (docs/adr/0020)."""

from collections.abc import Mapping

from shared.broker.declarations import Call
from shared.broker.desk_replies import Held, OtherLanes
from shared.broker.desk_requests import Holding, Kind, Place, Settlement
from shared.broker.replies import WriteReply
from shared.broker.scripts import Ending, Holder, StreamScripts
from shared.budgets import parse_reservations
from shared.rate_limits import Demand, Limits


class HeldPlace:
    """The desk's part of one stream. ``fields``: of the state, as they were claimed; ``lanes``: those of the stream,
    one a line."""

    def __init__(self, holder: Holder, fields: Mapping[str, bytes]) -> None:
        self._holder = holder
        self._fields = fields
        self.lanes = self._text("lane")
        self._ended: WriteReply | None = None

    def hold(self, scripts: StreamScripts, renewed: WriteReply, *, is_lost: bool = False) -> Call[Held | OtherLanes]:
        """Return the call that extends the place after a renewal of the lease. ``is_lost``: the desk has lost it."""
        limits = Limits(
            concurrent_streams=int(self._text("limited") or 0), stored_bytes=int(self._text("stored_limit") or 0)
        )
        reservations = parse_reservations(self._text("budgets")) if is_lost else ()
        demand = Demand(self._text("account"), limits, int(self._text("expected_tokens") or 0), reservations)
        targets = self._text("lanes") or self._text("provider")
        is_batch = self._text("priority") == "batch"
        place = Place(self._holder.stream_id, demand, renewed.size, targets, self._text("sources"), is_batch)
        holding = Holding(place, self._holder.token, renewed.expires, self.lanes, is_lost)
        return scripts.desk.hold(holding)

    def hold_ended(self, scripts: StreamScripts) -> Call[Held | OtherLanes] | None:
        """Return the same call for a stream that has ended and is not settled; None if this worker did not end it."""
        return self.hold(scripts, self._ended) if self._ended is not None else None

    def end(self, reply: WriteReply) -> None:
        """Note the reply to the call that has ended the stream."""
        self._ended = reply

    def settlement(self, scripts: StreamScripts, ending: Ending | None) -> Settlement | None:
        """Return what the desk has to settle; None if the sweep has to find that out."""
        if self._ended is None or ending is None:
            return None
        owed = scripts.owed(ending, self._ended)
        return Settlement(
            self._holder.stream_id,
            self._text("account"),
            Kind.ENDED,
            owed,
            self._holder.idempotency or "",
            has_webhook="webhook" in self._fields,
            has_archive="archive" in self._fields,
            ledger=ending.ledger,
            budgets=self._text("budgets"),
        )

    def _text(self, name: str) -> str:
        return self._fields.get(name, b"").decode()
