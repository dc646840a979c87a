"""Budgets of a request: its reservations, the refusal and the warning. admit.lua counts (docs/limits.md)."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from gateway import metrics
from gateway.auth.principal import Principal
from gateway.intake.field_policy import targets_of
from shared.broker.desk_replies import BudgetName, OverBudget
from shared.budgets import SERVER, Budget, Budgets, Reservation, amount_text, period_of, resets_at
from shared.configuration.current import CurrentConfiguration
from shared.errors import BudgetReached, InvalidRequest, PriceUnknown
from shared.prices import highest_cost_of, price_of
from shared.rate_limits import Demand
from shared.schemas import ChatRequest

logger = logging.getLogger(__name__)

#: Wait for requests in progress that hold the rest of a budget.
_RETRY_AFTER_S: Final = 5
_PERIOD_WORDS: Final = {"day": "today", "month": "this month"}


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens of a request: of its input, as estimated, and the largest output. ``is_assumed``: it set no maximum."""

    input_tokens: int
    output_tokens: int
    is_assumed: bool

    @property
    def certain(self) -> "Size":
        """The part that does not depend on an assumption."""
        return replace(self, output_tokens=0) if self.is_assumed else self

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class RequestBudgets:
    """Budgets of the caller and of the server, with the prices of the configuration in force."""

    def __init__(self, current: CurrentConfiguration) -> None:
        self._current = current
        self._server = current.value.settings.budgets

    def reservations(self, principal: Principal, resolved: ChatRequest, size: Size) -> tuple[Reservation, ...]:
        """Return the reservations of a request with resolved targets, one for each account. Raises
        :class:`PriceUnknown`, and :class:`InvalidRequest` for a request that exceeds a whole budget."""
        own = (principal.key_id or "", principal.budgets)
        accounts = [(account, budgets) for account, budgets in (own, (SERVER, self._server)) if account and budgets]
        if resolved.only_count or not accounts:
            return ()
        return tuple(self._reservation(account, budgets, resolved, size) for account, budgets in accounts)

    def _reservation(self, account: str, budgets: Budgets, resolved: ChatRequest, size: Size) -> Reservation:
        least_tokens, least_nanos = budgets.least_tokens, budgets.least_nanos
        for field, part in (("messages", replace(size, output_tokens=0)), ("max_tokens", size.certain)):
            nanos = self._cost(budgets.currency, resolved, part).nanos or 0
            if least_tokens and part.tokens > least_tokens:
                raise _too_large(field, account, f"needs up to {part.tokens} tokens")
            if least_nanos and nanos > least_nanos:
                raise _too_large(field, account, f"may cost up to {amount_text('nanos', nanos, budgets.currency)}")
        # An assumption never makes a request impossible.
        whole = self._cost(budgets.currency, resolved, size)
        tokens = min(size.tokens, least_tokens) if least_tokens else size.tokens
        money = min(whole.nanos, least_nanos) if least_nanos and whole.nanos is not None else None
        return Reservation(account, tokens, money, budgets, is_fixed=whole.is_mixed)

    def _cost(self, currency: str, resolved: ChatRequest, size: Size) -> "_Cost":
        """Return the cost at the target that costs most. Raises :class:`PriceUnknown`."""
        if not currency:
            return _Cost(None)
        dearest, is_mixed = None, False
        for target in targets_of(resolved):
            provider, _, model = target.partition("/")
            price = price_of(self._current.value.prices, provider, model)
            if price is not None and price.currency == currency:
                dearest = max(dearest or 0, highest_cost_of(price, size.input_tokens, size.output_tokens))
            elif self._current.value.settings.budget_unknown == "refuse":
                raise _counted(_price_unknown(target, currency))
            else:
                is_mixed = is_mixed or price is not None
        return _Cost(dearest, is_mixed)


@dataclass(frozen=True, slots=True)
class _Cost:
    """``nanos``: None if no target has a price in the currency. ``is_mixed``: one has a price in another."""

    nanos: int | None
    is_mixed: bool = False


def budget_refusal(demand: Demand, over: OverBudget) -> BudgetReached:
    """Return the error of a request that would exceed a budget. Only the owner of a key gets to know its amounts."""
    name, reservation = over.budget, _reservation_of(demand, over.budget.account)
    budget, period = _budget_of(reservation, name), period_of(name.period)
    limit, more = getattr(budget, name.kind), getattr(reservation, name.kind) or 0
    used, reserved, whole, needed = (
        amount_text(name.kind, n, budget.currency) for n in (over.spent, over.reserved, limit, more)
    )
    is_short = over.spent + more <= limit
    again = f"{resets_at(name.period):%Y-%m-%dT%H:%M:%SZ}"
    remedy = "try again when one has ended" if is_short else f"available again from {again}"
    if not is_short and over.spent < limit:
        remedy += "; until then a request with a lower max_tokens may fit"
    when = _PERIOD_WORDS[period]
    if name.account == SERVER:
        problem = "reserved by requests in progress" if is_short else "used up"
        message = f"budget of the server: {problem} for {when} (UTC); {remedy}"
        detail = f"HEADRACE_BUDGET_{period.upper()}: {whole} is used up or reserved; raise it, or wait until {again}"
    else:
        message = (
            f"budget of the API key: {used} of {whole} are used {when} (UTC), {reserved} are reserved by requests in"
            f" progress, and this request needs up to {needed}; {remedy}"
        )
        detail = f"key {name.account}: its budget of {whole} {when} is used up or reserved; see `headrace keys list`"
    return BudgetReached(message, detail=detail, retry_after_s=_RETRY_AFTER_S if is_short else None)


def warn(demand: Demand, warnings: Iterable[BudgetName]) -> None:
    """Log and count the budgets that are nearly spent."""
    for name in warnings:
        budget, period = _budget_of(_reservation_of(demand, name.account), name), period_of(name.period)
        kind = "tokens" if name.kind == "tokens" else "money"
        owner = "server" if name.account == SERVER else "key"
        metrics.BUDGET_WARNINGS.labels(owner, period, kind).inc()
        limit = amount_text(name.kind, getattr(budget, name.kind), budget.currency)
        ends = f"{resets_at(name.period):%Y-%m-%dT%H:%M:%SZ}"
        extra = {"account": name.account, "period": period, "kind": kind, "budget": limit, "resets_at": ends}
        logger.warning("budget nearly spent", extra=extra)


def _reservation_of(demand: Demand, account: str) -> Reservation:
    return next(each for each in demand.reservations if each.account == account)


def _budget_of(reservation: Reservation, name: BudgetName) -> Budget:
    return reservation.budgets.day if period_of(name.period) == "day" else reservation.budgets.month


def _too_large(field: str, account: str, need: str) -> InvalidRequest:
    owner = "server" if account == SERVER else "API key"
    return InvalidRequest(f"{field}: {need}, above a whole budget of the {owner}; ask for less")


def _price_unknown(target: str, currency: str) -> PriceUnknown:
    table = f'[prices."{target}"]'
    return PriceUnknown(
        f"model: {target} has no price in {currency}, so a budget cannot count it; choose another model, or have"
        f" {table} added",
        detail=f"{target}: add {table} in {currency} to the file of HEADRACE_CONFIG, or set"
        " HEADRACE_BUDGET_UNKNOWN=allow to count it as free",
    )


def _counted(error: PriceUnknown) -> PriceUnknown:
    metrics.REFUSALS.labels(error.code).inc()
    return error
