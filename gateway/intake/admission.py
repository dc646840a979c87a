"""What a request takes of its principal's limits, and how that is told. create.lua counts (docs/limits.md)."""

import math
from dataclasses import dataclass
from typing import Final

from gateway.auth.principal import Principal
from shared.broker.replies import Limited, Used
from shared.errors import InvalidRequest, LimitReached
from shared.protocol.usage import Estimate
from shared.rate_limits import Demand, Limits, account_of
from shared.schemas import ChatRequest
from shared.settings import Settings

_LONGEST_WAIT_S: Final = 60
_MESSAGES: Final = {
    "requests_per_minute": "there were {limit} requests within this minute, which is the limit",
    "tokens_per_minute": "this request may take {asked} tokens; of {limit} in a minute {used} are taken",
    "tokens_per_day": "this request may take {asked} tokens; of {limit} on a day (UTC) {used} are taken",
    "concurrent_streams": "{limit} streams run or wait at once, which is the limit",
}


@dataclass(frozen=True, slots=True)
class Admission:
    """``used`` is None where there are no limits."""

    demand: Demand
    used: Used | None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.used is None else _headers(self.demand.limits, self.used)


def demand_of(principal: Principal, asked: ChatRequest, settings: Settings) -> Demand:
    """Raises :class:`InvalidRequest` for one that no limit will ever leave room for."""
    limits = settings.limits.changed(principal.limits)
    sent = Estimate(asked.prompt_characters, 0).prompt_tokens
    tokens = sent + (settings.tokens_assumed if asked.max_tokens is None else asked.max_tokens)
    most = limits.most_tokens
    if most and sent + (asked.max_tokens or 0) > most:
        field = "messages" if sent > most else "max_tokens"
        raise InvalidRequest(f"{field}: this would take up to {tokens} tokens; the limit of its owner is {most}")
    return Demand(account_of(principal.id), limits, min(tokens, most) if most else tokens)


def refusal(demand: Demand, limited: Limited) -> LimitReached:
    used = {"tokens_per_minute": limited.used.tokens, "tokens_per_day": limited.used.tokens_today}
    message = _MESSAGES[limited.limit].format(
        limit=getattr(demand.limits, limited.limit), asked=demand.tokens, used=used.get(limited.limit)
    )
    headers = _headers(demand.limits, limited.used)
    headers["Retry-After"] = str(min(_LONGEST_WAIT_S, max(1, math.ceil(limited.wait_s))))
    return LimitReached(limited.limit, message, headers)


def _headers(limits: Limits, used: Used) -> dict[str, str]:
    """As OpenAI's SDKs know them, and the one of them that is nearest to its end as an Internet draft has it
    (draft-ietf-httpapi-ratelimit-headers-07)."""
    rows = [
        ("Requests", limits.requests_per_minute, used.requests, used.requests_reset_s),
        ("Tokens", limits.tokens_per_minute, used.tokens, used.tokens_reset_s),
    ]
    headers, nearest = {}, (math.inf, 0, 0, 0)
    for name, limit, taken, reset_s in rows:
        if limit:
            left, reset = max(0, limit - taken), math.ceil(reset_s)
            headers[f"X-RateLimit-Limit-{name}"] = str(limit)
            headers[f"X-RateLimit-Remaining-{name}"] = str(left)
            headers[f"X-RateLimit-Reset-{name}"] = f"{reset}s"
            nearest = min(nearest, (left / limit, limit, left, reset))
    if headers:
        _, limit, left, reset = nearest
        headers |= {"RateLimit-Limit": str(limit), "RateLimit-Remaining": str(left), "RateLimit-Reset": str(reset)}
        headers["RateLimit-Policy"] = f"{limit};w=60"
    return headers
