"""Calls of the desk for the requests of some accounts, with the limits that a measurement wants."""

import time
from collections.abc import Callable
from typing import Any, Final

from shared.broker.declarations import Call
from shared.broker.desk_requests import Holding, Kind, Place, Settlement
from shared.broker.keys import account_keys
from shared.broker.pipeline_connection import Command
from shared.broker.replies import Owed
from shared.broker.scripts import StreamScripts
from shared.protocol.ids import new_stream_id
from shared.rate_limits import Demand, Limits, TargetLimits
from shared.settings import Settings

_TOKEN: Final = "w00112233.0123456789abcdef"
_SIZE: Final = 4900
#: All of them, so large that they refuse nothing.
_LIMITS: Final = Limits(
    requests_per_minute=10**6,
    tokens_per_minute=10**12,
    tokens_per_day=10**12,
    concurrent_streams=10**6,
    stored_bytes=2**50,
)
STEPS: Final = ("admit", "pop", "take", "hold", "settle")


class Desk:
    """Calls of the desk. ``accounts``: requests are spread over so many. ``lanes``: each takes a provider's slot,
    whose limits refuse nothing."""

    def __init__(self, limits: Limits, accounts: int, lanes: bool) -> None:
        self._scripts = StreamScripts(Settings())
        self._limits = limits
        self._accounts = accounts
        self._number = 0
        self._lanes = "openai" if lanes else ""
        self._targets = {"openai": TargetLimits(10**6, 10**6, 10**12)} if lanes else {}

    def place(self) -> Place:
        self._number += 1
        demand = Demand(f"account-{self._number % self._accounts}", self._limits, 1000)
        return Place(new_stream_id(), demand, _SIZE, "openai")

    def minute_of_use(self) -> list[Command]:
        """Return commands that give all accounts use in each second of a minute, as under steady traffic: limits are
        computed from it."""
        if not self._limits.has_rates:
            return []
        seconds = range(round(time.time()) - 59, round(time.time()))
        counts = [item for at in seconds for item in (f"r{at}", 1, f"t{at}", 1000)]
        names = (f"account-{number}" for number in range(self._accounts))
        return [("HSET", account_keys(name)["used"], *counts) for name in names]

    def call(self, step: str, place: Place) -> Call[Any]:
        desk = self._scripts.desk
        if step == "admit":
            return desk.admit(place)
        if step == "take":
            return desk.take(place.stream_id, _TOKEN, self._targets, "")
        now_ms = round(time.time() * 1000)
        if step == "hold":
            return desk.hold(Holding(place, _TOKEN, now_ms + 86_400_000, self._lanes))
        owed = Owed("completed", "", 500, _SIZE, now_ms)
        return desk.settle(Settlement(place.stream_id, place.demand.account, Kind.ENDED, owed), self._lanes)


KINDS: Final[dict[str, Callable[[], Desk]]] = {
    "no limits": lambda: Desk(Limits(), 100, lanes=False),
    "stored bytes only, the default": lambda: Desk(Limits(stored_bytes=2**29), 100, lanes=False),
    "all limits of accounts": lambda: Desk(_LIMITS, 100, lanes=False),
    "all limits, one account": lambda: Desk(_LIMITS, 1, lanes=False),
    "all limits, and those of a provider": lambda: Desk(_LIMITS, 100, lanes=True),
}
