"""Signed, expiring rights to read one stream, carried in its URL, so that a browser's EventSource needs no header."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from shared.errors import Forbidden, InvalidTicket
from shared.settings import Settings

_ALGORITHM = "HS256"
_AUDIENCE = "headrace:stream"


class Tickets:
    """Raises ValueError where the settings have no secret."""

    def __init__(self, settings: Settings) -> None:
        if settings.secret is None:
            raise ValueError("HEADRACE_SECRET is not set")
        self._secret = settings.secret.get_secret_value()
        # As long as the stream can live: every attempt to its deadline, and twice the retention around it.
        life_s = settings.max_attempts * settings.total_deadline_s + 2 * settings.retention_s
        self._life_s = settings.ticket_life_s or life_s

    def issue(
        self, stream_id: str, *, life_s: float | None = None, may_cancel: bool = False, key_id: str | None = None
    ) -> tuple[str, datetime]:
        """The ticket and when it expires. ``key_id``: of the API key with which it ends."""
        expires = datetime.now(UTC) + timedelta(seconds=life_s or self._life_s)
        claims: dict[str, Any] = {"sub": stream_id, "aud": _AUDIENCE, "exp": expires}
        if may_cancel:
            claims["cancel"] = True
        if key_id is not None:
            claims["key"] = key_id
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM), expires

    def check(self, ticket: str, stream_id: str, *, to_cancel: bool = False) -> tuple[float, str | None]:
        """When it expires, in Unix seconds, and the id of the key with which it ends. Raises :class:`InvalidTicket`,
        and :class:`Forbidden` where it is good for reading only."""
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
            raise InvalidTicket("the ticket is not one of ours") from None
        if claims["sub"] != stream_id:
            raise InvalidTicket("the ticket is for another stream")
        if to_cancel and claims.get("cancel") is not True:
            raise Forbidden("the ticket is for reading only")
        return float(claims["exp"]), claims.get("key")
