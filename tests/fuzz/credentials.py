"""Targets: tickets, tokens, API keys and trace contexts."""

import asyncio
import json
import random
import time
from typing import Any, Final

import jwt

from gateway.auth.json_web_tokens import JsonWebTokens
from gateway.auth.tickets import Tickets
from shared.broker.api_keys import split_api_key
from shared.errors import Forbidden, InvalidTicket, Unauthenticated
from shared.settings import Settings
from tests.fuzz.mutations import any_text, mutated_json
from tests.fuzz.target import Target, from_text

_SECRET: Final = "a-secret-for-tests-only-0123456789abcdef" * 2
_STREAM_ID: Final = "a3" + "0" * 32
_TICKETS: Final = Tickets(Settings.model_validate({"secret": _SECRET}))
_TICKET: Final = _TICKETS.for_request(_STREAM_ID, 0)[0]
_TOKENS: Final = JsonWebTokens(
    Settings.model_validate({"auth": ("jwt",), "jwt_secret": _SECRET, "jwt_audience": "us", "jwt_issuer": "them"})
)
_CLAIMS: Final = {
    "sub": "alice",
    "aud": "us",
    "iss": "them",
    "exp": 4_000_000_000,
    "iat": 1,
    "nbf": 1,
    "scope": "chat read",
    "models": ["openai/*"],
}
_TICKET_CLAIMS: Final = {
    "sub": _STREAM_ID,
    "aud": "headrace:stream",
    "rev": 1_800_000_000_000,
    "exp": 4_000_000_000,
    "cancel": True,
    "key": "k",
}


def _signed(claims: dict[str, Any]) -> Any:
    """Make tokens with mutated claims and a valid signature: an issuer may sign anything."""

    def make(rng: random.Random) -> str:
        while True:
            try:
                payload = json.dumps(mutated_json(claims, rng)).encode()
                return jwt.PyJWS().encode(payload, _SECRET, algorithm=rng.choice(("HS256", "HS256", "HS512")))
            except (RecursionError, ValueError):
                continue  # nested too deeply to be written

    return make


def _sent(rng: random.Random) -> str:
    """Make a token as a URL or a header has it."""
    return any_text([_TICKET, jwt.encode(_CLAIMS, _SECRET)], rng).encode("utf-8", "replace").decode("latin-1")


def _ticket(text: str) -> None:
    expires_at = _TICKETS.check(text, _STREAM_ID).expires_at
    assert expires_at is not None
    assert expires_at > time.time()


def _token(text: str) -> None:
    principal = asyncio.run(_TOKENS.principal(text))
    assert principal.id.startswith("jwt:")
    assert principal.id.isprintable()
    assert principal.expires_at is not None
    assert principal.expires_at > time.time()


def _api_key(text: str) -> None:
    parts = split_api_key(text)
    assert parts is None or all(parts)


CREDENTIALS: Final = (
    Target("ticket", _sent, _ticket, (InvalidTicket,)),
    Target("ticket-claims", _signed(_TICKET_CLAIMS), _ticket, (InvalidTicket, Forbidden)),
    Target("token", _sent, _token, (Unauthenticated,)),
    Target("token-claims", _signed(_CLAIMS), _token, (Unauthenticated,)),
    Target("api-key", from_text("hr-0123456789ab-" + "x" * 43, "hr--x"), _api_key),
)
