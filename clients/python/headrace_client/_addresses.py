"""Addresses of a gateway and of its streams, and the credentials that each may get."""

import re
import secrets
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit

_ID: Final = re.compile("[A-Za-z0-9_-]{1,128}")
_PATH: Final = re.compile(r"(?P<base>.*)/chat/(?:stream/)?(?P<id>[A-Za-z0-9_-]{1,128})")
_HEADER: Final = re.compile("[!-~]{0,8000}")
_USER: Final = re.compile(r"[!-+\-.0-~]{1,128}")


@dataclass(frozen=True)
class Gateway:
    """A gateway. ``base`` has no slash at its end. ``user``: the user for whom the key acts."""

    base: str
    key: str | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("url: not an absolute http or https URL; use, for example, http://localhost:8000")
        if self.key is not None:
            checked_header("key", self.key)
        if self.user is not None and not _USER.fullmatch(self.user):
            problem = "must have 1 to 128 visible ASCII characters without slash and comma; percent-encode others"
            raise ValueError(f"user: {problem}")

    def headers(self, url: str) -> dict[str, str]:
        """Return the credentials for ``url``. Another origin never gets the key."""
        if _origin(url) != _origin(self.base):
            return {}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return headers if self.user is None else headers | {"X-Headrace-User": self.user}

    def stream(self, id_or_url: str) -> "StreamAddress":
        """Return the address of a stream, from its id or from a URL with or without a ticket."""
        if _ID.fullmatch(id_or_url):
            return StreamAddress(self.base, id_or_url)
        parts = urlsplit(self.base + id_or_url if id_or_url.startswith("/") else id_or_url)
        found = _PATH.fullmatch(parts.path)
        if parts.scheme not in {"http", "https"} or not parts.netloc or not found:
            raise ValueError("stream: neither an id nor the URL of a stream; use the stream_id or the stream_url")
        ticket = parse_qs(parts.query).get("ticket", [""])[0]
        return StreamAddress(f"{parts.scheme}://{parts.netloc}{found['base']}", found["id"], ticket)


@dataclass(frozen=True)
class StreamAddress:
    """A stream at a gateway. ``ticket`` is the credential of a link, or empty."""

    base: str
    id: str
    ticket: str = field(default="", repr=False)

    @property
    def stream_url(self) -> str:
        return self._with_ticket(f"{self.base}/chat/stream/{quote(self.id)}")

    @property
    def status_url(self) -> str:
        return self._with_ticket(f"{self.base}/chat/{quote(self.id)}")

    def cancel_urls(self) -> list[str]:
        """Return the URLs to try in this order.

        The ticket of a link may be for reading only; then the key of the same gateway may cancel.
        """
        url = f"{self.base}/chat/{quote(self.id)}/cancel"
        return [self._with_ticket(url), url] if self.ticket else [url]

    def _with_ticket(self, url: str) -> str:
        return f"{url}?{urlencode({'ticket': self.ticket})}" if self.ticket else url


def new_idempotency_key() -> str:
    return secrets.token_hex(16)


def checked_header(name: str, value: str) -> str:
    """Return ``value`` if a header may have it. The error does not show it: HTTP libraries would."""
    if not _HEADER.fullmatch(value):
        raise ValueError(f"{name}: contains characters that no header may have; use printable ASCII without spaces")
    return value


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
