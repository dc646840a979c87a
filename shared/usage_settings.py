"""The settings of the ledger, a part of ``shared/settings.py``."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings


class UsageSettings(BaseSettings):
    #: Days for which Redis keeps the daily sums of calls, tokens and costs.
    usage_days: Annotated[int, Field(ge=1, le=3660)] = 62
