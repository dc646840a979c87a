"""Requests to the desk, the slot with everything that is per request (docs/adr/0020)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.broker.replies import Owed
from shared.protocol.ledger import LedgerEntry
from shared.rate_limits import Demand

#: Limits that the streams of an account take until they are settled.
UNTIL_SETTLED: Final = frozenset({"concurrent_streams", "tokens_per_minute", "tokens_per_day", "budget"})
#: Limits whose refusal is final only if the caller says so, since it may make room.
MAKES_ROOM: Final = UNTIL_SETTLED | {"stored_bytes"}


@dataclass(frozen=True, slots=True)
class Place:
    """The desk's part of a new stream. ``size``: its bytes. ``targets``: providers in order, separated by spaces.
    ``sources``: ids of streams that it was made from, separated by spaces."""

    stream_id: str
    demand: Demand
    size: int
    targets: str = ""
    sources: str = ""


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
    them, as far as the caller knows."""

    stream_id: str
    account: str
    kind: Kind
    owed: Owed | None = None
    digest: str = ""
    has_webhook: bool = False
    has_archive: bool = False
    ledger: Sequence[LedgerEntry] = ()
    budgets: str = ""


@dataclass(frozen=True, slots=True)
class Holding:
    """The desk's part of a stream that a worker holds. ``place``: as it was admitted. ``expires``: of its bytes, ms.
    ``lanes``: those of the stream, one a line. ``is_lost``: the desk has lost it and counts it again."""

    place: Place
    token: str
    expires: int
    lanes: str
    is_lost: bool = False
