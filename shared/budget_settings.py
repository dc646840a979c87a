"""The settings of budgets, a part of ``shared/settings.py``."""

from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic_settings import BaseSettings

from shared.budgets import Budgets, parse_budget


def _budget(text: str) -> str:
    return parse_budget(text).text


_Budget = Annotated[str, AfterValidator(_budget)]


class BudgetSettings(BaseSettings):
    #: What all requests together may use in a UTC day and month, in money and in tokens: ``5 USD,2000000 tokens``.
    budget_day: _Budget = ""
    budget_month: _Budget = ""
    #: Requests for a model without a price in the currency of a budget: refused, or counted as free.
    budget_unknown: Literal["refuse", "allow"] = "refuse"

    @property
    def budgets(self) -> Budgets:
        """Budgets of the whole server."""
        return Budgets(parse_budget(self.budget_day), parse_budget(self.budget_month))
