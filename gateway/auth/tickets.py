"""Tickets: signed, expiring grants to read one stream, carried in its URL, because an EventSource sends no
headers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from shared.errors import Forbidden, InvalidTicket
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
        self._life_s = settings.ticket_life_s or life_s

    def issue(
        self, stream_id: str, *, life_s: float | None = None, may_cancel: bool = False, key_id: str | None = None
    ) -> tuple[str, datetime]:
        """Return the ticket and its expiry. ``key_id``: the API key that made it, which ends it when revoked."""
        expires = datetime.now(UTC) + timedelta(seconds=life_s or self._life_s)
        claims: dict[str, Any] = {"sub": stream_id, "aud": _AUDIENCE, "exp": expires}
        if may_cancel:
            claims["cancel"] = True
        if key_id is not None:
            claims["key"] = key_id
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM), expires

    def check(self, ticket: str, stream_id: str, *, to_cancel: bool = False) -> tuple[float, str | None]:
        """Return the expiry in Unix seconds and the id of the API key that made the ticket. Raises
        :class:`InvalidTicket`, and :class:`Forbidden` for a read-only ticket with ``to_cancel``."""
        try:
            claims = jwt.decode(
                ticket,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["sub", "exp", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise InvalidTicket("the ticket has expired") from None
        except jwt.InvalidTokenError:
            raise InvalidTicket("the ticket is invalid") from None
        if claims["sub"] != stream_id:
            raise InvalidTicket("the ticket is for another stream")
        if to_cancel and claims.get("cancel") is not True:
            raise Forbidden("the ticket allows reading only")
        return float(claims["exp"]), claims.get("key")
