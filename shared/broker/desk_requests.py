"""Requests to the desk, the slot with everything that is per request (docs/adr/0020)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.broker.replies import Owed
from shared.protocol.ledger import UNKNOWN_COST, LedgerEntry
from shared.rate_limits import Demand

#: Limits that the streams of an account take until they are settled.
UNTIL_SETTLED: Final = frozenset({"concurrent_streams", "tokens_per_minute", "tokens_per_day", "budget"})
#: Limits whose refusal is final only if the caller says so, since it may make room.
MAKES_ROOM: Final = UNTIL_SETTLED | {"stored_bytes"}


@dataclass(frozen=True, slots=True)
class Place:
    """The desk's part of a new stream. ``size``: its bytes. ``targets``: providers in order, separated by spaces.
    ``sources``: ids of streams that it was made from, separated by spaces. ``is_batch``: its class in the queue."""

    stream_id: str
    demand: Demand
    size: int
    targets: str = ""
    sources: str = ""
    is_batch: bool = False


class Kind(StrEnum):
    """Reasons for which the desk forgets a stream. PENDING: it has ended, and has to be archived. REFUSED: it was
    admitted, and never created. EXPIRED: it has no state, for another reason than the others."""

    ENDED = "ended"
    PENDING = "pending"
    DELETED = "deleted"
    DROPPED = "dropped"
    REFUSED = "refused"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a stream for the desk. ``owed``: its ending, if there was one that the desk has not settled yet.
    ``digest``: of its idempotency key, or empty. ``has_webhook``: its ending has to be delivered.
    ``has_archive``: it has to be archived. ``ledger``: its calls of providers. ``budgets``: as its state has
    them, as far as the caller knows. ``is_unused``: no worker ever had it."""

    stream_id: str
    account: str
    kind: Kind
    owed: Owed | None = None
    digest: str = ""
    has_webhook: bool = False
    has_archive: bool = False
    ledger: Sequence[LedgerEntry] = ()
    budgets: str = ""
    is_unused: bool = False

    @property
    def tokens(self) -> int | None:
        """The tokens that it used, for limits; None: as many as were reserved."""
        if self.owed is not None:
            return self.owed.tokens
        return 0 if self._is_free else None

    @property
    def charged_tokens(self) -> int | None:
        """The same for budgets: those of all calls, as with the cost."""
        if self.owed is not None and self.ledger:
            return sum(entry.input_tokens + entry.output_tokens for entry in self.ledger)
        return self.tokens

    @property
    def cost(self) -> str:
        """The cost of its calls, in nanos; :data:`UNKNOWN_COST`: as much as was reserved."""
        if self.owed is not None:
            return self.owed.cost
        return "0" if self._is_free else UNKNOWN_COST

    @property
    def _is_free(self) -> bool:
        return self.kind is Kind.REFUSED or self.is_unused


@dataclass(frozen=True, slots=True)
class Holding:
    """The desk's part of a stream that a worker holds. ``place``: as it was admitted. ``expires``: of its bytes, ms.
    ``lanes``: those of the stream, one a line. ``is_lost``: the desk has lost it and counts it again."""

    place: Place
    token: str
    expires: int
    lanes: str
    is_lost: bool = False
