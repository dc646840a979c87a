"""The use of budgets, as the desk counts it. ``_budgets.lua`` writes it. Raises :class:`BrokerUnavailable`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shared.broker.client import Client, run_commands
from shared.broker.keys import budget_key
from shared.broker.pipeline_connection import Command
from shared.budgets import KINDS, PERIODS, Budgets, Kind, Period, period_at, resets_at
from shared.protocol.ledger import NANOS


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """One limit of an account, with the used amount and the one that streams in progress have reserved. ``currency``:
    of money, in nanos; empty for tokens."""

    period: Period
    kind: Kind
    currency: str
    limit: int
    used: int
    reserved: int
    resets_at: datetime

    @property
    def members(self) -> dict[str, Any]:
        """The members of a JSON object, with money in units of its currency."""
        is_money = self.kind == "nanos"
        amounts = {"limit": self.limit, "used": self.used, "reserved": self.reserved}
        return {
            "period": self.period,
            "kind": "money" if is_money else "tokens",
            "currency": self.currency or None,
            **{name: amount / NANOS if is_money else amount for name, amount in amounts.items()},
            "resets_at": f"{self.resets_at:%Y-%m-%dT%H:%M:%SZ}",
        }


async def read_budget_uses(client: Client, budgets: Mapping[str, Budgets]) -> dict[str, list[BudgetUse]]:
    """Return the use of each limit of some accounts, in the periods of now. Without budgets it asks nothing."""
    limited = {account: each for account, each in budgets.items() if each}
    commands: list[Command] = [("TIME",)]
    commands += [("HGETALL", budget_key(account)) for account in limited]
    replies = await run_commands(client, commands) if limited else [[0]]
    now = datetime.fromtimestamp(int(replies[0][0]), UTC)
    found: dict[str, list[BudgetUse]] = {account: [] for account in budgets}
    for account, flat in zip(limited, replies[1:], strict=True):
        counts = {name.decode(): int(n) for name, n in zip(flat[::2], flat[1::2], strict=True)}
        found[account] = _uses(limited[account], counts, now)
    return found


def _uses(budgets: Budgets, counts: Mapping[str, int], now: datetime) -> list[BudgetUse]:
    uses = []
    for period in PERIODS:
        budget, name = getattr(budgets, period), period_at(period, now)
        for kind in KINDS:
            if limit := getattr(budget, kind):
                used, reserved = (counts.get(f"{name}:{what}{kind}", 0) for what in ("", "reserved_"))
                currency = budget.currency if kind == "nanos" else ""
                uses.append(BudgetUse(period, kind, currency, limit, used, reserved, resets_at(name)))
    return uses
