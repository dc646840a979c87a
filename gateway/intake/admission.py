"""Rate limits of a request: its demand, the refusal and the headers. admit.lua counts (docs/limits.md)."""

import math
from dataclasses import dataclass
from typing import Final

from gateway.auth.principal import Principal
from gateway.intake.budgets import Size
from shared.broker.desk_replies import Limited, Used
from shared.errors import InvalidRequest, LimitReached
from shared.protocol.usage import Estimate
from shared.rate_limits import Demand, Limits, account_of
from shared.schemas import ChatRequest
from shared.settings import Settings

_LONGEST_WAIT_S: Final = 60
_MESSAGES: Final = {
    "requests_per_minute": "limit of {limit} requests per minute reached; see Retry-After",
    "tokens_per_minute": "requires up to {demand} tokens; {used} of {limit} per minute are used; see Retry-After",
    "tokens_per_day": "requires up to {demand} tokens; {used} of {limit} per day (UTC) are used; see Retry-After",
    "concurrent_streams": "limit of {limit} concurrent streams reached; try again when one has ended",
}


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted request. ``used``: None if there are no limits."""

    demand: Demand
    used: Used | None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.used is None else _headers(self.demand.limits, self.used)


def demand_of(principal: Principal, chat_request: ChatRequest, prompt_characters: int, settings: Settings) -> Demand:
    """Return the request's demand. Raises :class:`InvalidRequest` if the request alone exceeds a limit."""
    limits = settings.limits.changed(principal.limits)
    size = size_of(chat_request, prompt_characters, settings)
    most = limits.most_tokens
    if most and size.certain.tokens > most:
        field = "messages" if size.input_tokens > most else "max_tokens"
        raise InvalidRequest(f"{field}: requires up to {size.tokens} tokens, above your limit of {most}")
    return Demand(account_of(principal.id), limits, min(size.tokens, most) if most else size.tokens)


def size_of(chat_request: ChatRequest, prompt_characters: int, settings: Settings) -> Size:
    """Return the tokens that a request may need."""
    most, assumed = chat_request.max_tokens, settings.tokens_assumed
    output = assumed if most is None else most
    return Size(Estimate(prompt_characters, 0).prompt_tokens, output, is_assumed=most is None)


def refusal(demand: Demand, limited: Limited) -> LimitReached:
    used = {"tokens_per_minute": limited.used.tokens, "tokens_per_day": limited.used.tokens_today}
    message = _MESSAGES[limited.limit].format(
        limit=getattr(demand.limits, limited.limit), demand=demand.tokens, used=used.get(limited.limit)
    )
    headers = _headers(demand.limits, limited.used)
    headers["Retry-After"] = str(min(_LONGEST_WAIT_S, max(1, math.ceil(limited.wait_s))))
    return LimitReached(limited.limit, message, headers)


def _headers(limits: Limits, used: Used) -> dict[str, str]:
    """Return the headers that OpenAI's SDKs read, and those of an Internet draft for the limit that is nearest to
    exhaustion (draft-ietf-httpapi-ratelimit-headers-07)."""
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
