"""The settings of the ledger, a part of ``shared/settings.py``."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings


class UsageSettings(BaseSettings):
    #: Days for which Redis keeps the daily sums of calls, tokens and costs.
    usage_days: Annotated[int, Field(ge=1, le=3660)] = 62
    #: Usage of an answer that is cancelled: an estimate, or the count of its provider, whose call is read to the end.
    usage_on_cancel: Literal["estimate", "exact"] = "estimate"
    #: Time after a cancel in which that count must come.
    usage_final_s: Annotated[float, Field(ge=1, le=600)] = 60
