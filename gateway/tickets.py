"""Signed, expiring rights to read one stream, carried in its URL, so that a browser's EventSource needs no header."""

from datetime import UTC, datetime, timedelta

import jwt

from shared.errors import InvalidTicket
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
        self._life = timedelta(seconds=settings.max_attempts * settings.total_deadline_s + 2 * settings.retention_s)

    def issue(self, stream_id: str) -> tuple[str, datetime]:
        """The ticket and when it expires."""
        expires = datetime.now(UTC) + self._life
        claims = {"sub": stream_id, "aud": _AUDIENCE, "exp": expires}
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM), expires

    def check(self, ticket: str, stream_id: str) -> None:
        """Raises :class:`InvalidTicket`."""
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
