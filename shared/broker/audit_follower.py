"""Acts of the audit log as they end, for ``headrace audit --follow``."""

import time
from dataclasses import dataclass
from typing import Any, Final

from shared.broker.audit_log import Act, Entry, Outcome, RecordedAct, decode_entry, joined
from shared.broker.client import Client, run_commands
from shared.broker.keys import AUDIT

_PAGE: Final = 500
#: Acts of which a follower still expects the outcome.
_MOST_OPEN: Final = 1000


@dataclass(slots=True)
class _Open:
    """An act without an outcome so far. ``seen``: when, by the monotonic clock."""

    entry_id: str
    act: Act
    seen: float
    is_told: bool = False


class Follower:
    """Acts as they end, from ``since_ms`` on. An act without an outcome comes after ``outcome_within_s``, and again
    with an outcome that comes later."""

    def __init__(self, client: Client, since_ms: int, *, outcome_within_s: float) -> None:
        self._client = client
        self._from = str(since_ms)
        self._outcome_within_s = outcome_within_s
        self._open: dict[str, _Open] = {}
        self._ended: list[RecordedAct] = []  # not returned yet

    async def poll(self) -> list[RecordedAct]:
        """Return the acts that have ended since the last call. Raises :class:`BrokerUnavailable`; the next
        call returns all of them."""
        page: list[Any] | None = None
        while page is None or len(page) == _PAGE:
            (page,) = await run_commands(self._client, [("XRANGE", AUDIT, self._from, "+", "COUNT", _PAGE)])
            for entry_id, fields in page:
                self._from = f"({entry_id.decode()}"
                self._ended += self._take(entry_id.decode(), decode_entry(entry_id.decode(), fields[1]))
        over = time.monotonic() - self._outcome_within_s
        for each in self._open.values():
            if each.seen <= over and not each.is_told:
                each.is_told = True
                self._ended.append(joined(each.entry_id, each.act, None))
        for number in list(self._open)[:-_MOST_OPEN]:
            del self._open[number]
        ended, self._ended = self._ended, []
        return ended

    def _take(self, entry_id: str, entry: Entry) -> list[RecordedAct]:
        if entry.act is not None:
            self._open[entry.number] = _Open(entry_id, entry.act, time.monotonic())
        if entry.outcome is Outcome.UNKNOWN or (known := self._open.pop(entry.number, None)) is None:
            return []
        return [joined(known.entry_id, known.act, entry)]
