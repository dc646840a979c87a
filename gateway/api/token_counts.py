"""Estimated token counts, for models whose provider cannot count the tokens of a request."""

from typing import Final

from gateway.auth.principal import Principal
from gateway.state import GatewayState
from shared.protocol.usage import Estimate
from shared.schemas import ChatRequest

#: Marks a count as an estimate: no member of these bodies could.
ESTIMATED: Final = {"X-Headrace-Estimated": "input_tokens"}


async def estimated_tokens(gateway: GatewayState, caller: Principal, chat_request: ChatRequest) -> int | None:
    """Return an estimate of the request's tokens; None if its provider can count them. Raises the errors of
    :meth:`Models.resolve`."""
    resolved = await gateway.models.resolve(chat_request, caller.models)
    if resolved.provider is not None and await gateway.models.counts_tokens(resolved.provider):
        return None
    return Estimate(chat_request.prompt_characters, 0).prompt_tokens
