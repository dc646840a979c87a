"""Tickets: signed, expiring grants to read one stream, carried in its URL, because an EventSource sends no
headers."""

import time
from datetime import UTC, datetime
from typing import Any

import jwt

from gateway.auth.grants import Grant
from gateway.auth.principal import Principal
from shared.broker.api_keys import REVOCATION_KEPT_S
from shared.errors import Forbidden, InvalidTicket, Unauthenticated
from shared.settings import Settings

_ALGORITHM = "HS256"
_AUDIENCE = "headrace:stream"


class Tickets:
    """Issues and checks tickets. Raises ValueError if the settings have no secret."""

    def __init__(self, settings: Settings) -> None:
        if settings.secret is None:
            raise ValueError("HEADRACE_SECRET is not set")
        self._secret = settings.secret.get_secret_value()
        # The longest life of a stream: every attempt to its deadline, and the retention before and after.
        life_s = settings.max_attempts * settings.total_deadline_s + 2 * settings.retention_s
        self._life_s = min(settings.ticket_life_s or life_s, REVOCATION_KEPT_S)

    def for_request(self, stream_id: str, revocation: int) -> tuple[str, datetime]:
        """Return a ticket that reads the answer to a request, and its expiry. It outlives the caller's credentials.
        ``revocation``: number of the last revocation of links."""
        return self._issue(stream_id, time.time() + self._life_s, {"rev": revocation})

    def for_others(
        self, stream_id: str, maker: Principal, revocation: int, *, life_s: float | None, may_cancel: bool
    ) -> tuple[str, datetime]:
        """Return a ticket for a link, and its expiry. It ends with the credentials that made it: at their expiry, and
        when their key is revoked. Raises :class:`Unauthenticated` for credentials in their leeway."""
        now = time.time()
        ends_at = now + (life_s or self._life_s)
        if maker.expires_at is not None:
            ends_at = min(ends_at, maker.expires_at)
        if ends_at <= now:
            raise Unauthenticated("the credentials expire at this moment; use fresh ones")
        claims: dict[str, Any] = {"rev": revocation}
        if may_cancel:
            claims["cancel"] = True
        if maker.key_id is not None:
            claims["key"] = maker.key_id
        return self._issue(stream_id, ends_at, claims)

    def _issue(self, stream_id: str, ends_at: float, more_claims: dict[str, Any]) -> tuple[str, datetime]:
        claims = {"sub": stream_id, "aud": _AUDIENCE, "exp": int(ends_at)}
        expires = datetime.fromtimestamp(int(ends_at), UTC)
        return jwt.encode(claims | more_claims, self._secret, algorithm=_ALGORITHM), expires

    def check(self, ticket: str, stream_id: str, *, to_cancel: bool = False) -> Grant:
        """Return the grant of the ticket. Raises :class:`InvalidTicket`, and :class:`Forbidden` for a read-only
        ticket with ``to_cancel``."""
        try:
            claims = jwt.decode(
                ticket,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                # An older version wrote its own time, and its clock may have been ahead.
                options={"require": ["sub", "exp", "aud"], "verify_iat": False},
            )
        except jwt.ExpiredSignatureError:
            raise InvalidTicket("the ticket has expired") from None
        except jwt.InvalidTokenError:
            raise InvalidTicket("the ticket is invalid") from None
        if claims["sub"] != stream_id:
            raise InvalidTicket("the ticket is for another stream")
        if to_cancel and claims.get("cancel") is not True:
            raise Forbidden("the ticket allows reading only")
        # A ticket of an older version has no number, and counts as older than any revocation.
        try:
            return Grant(None, float(claims["exp"]), claims.get("key"), revocation=int(claims.get("rev", 0)))
        except (TypeError, ValueError, OverflowError):
            raise InvalidTicket("the ticket is invalid") from None
