"""Heads of POST requests to one server: request line, headers, and the cookies that the server has set."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp
from yarl import URL

from workers.providers.response_body import ACCEPTED_CODINGS

_FORBIDDEN: Final = re.compile(r"[\r\n\0]")
_DEFAULTS: Final = {"Accept": "*/*", "Accept-Encoding": ACCEPTED_CODINGS, "User-Agent": aiohttp.http.SERVER_SOFTWARE}


class RequestHead:
    """``headers``: of every request, over the defaults. A value that is no text removes a header."""

    def __init__(self, url: URL, headers: Mapping[str, Any]) -> None:
        self._headers = {"Host": url.host_port_subcomponent, **_DEFAULTS, **headers}
        self._lines: dict[str, str] | None = None
        self._cookies: aiohttp.CookieJar | None = None

    def to(self, url: URL, headers: Mapping[str, Any], body: bytes) -> bytes:
        """Return the head of a request with more headers. Raises ValueError for an invalid one."""
        if self._lines is None:
            self._lines = _lines_of(self._headers)
        own = {"Content-Length": str(len(body))}
        if self._cookies is not None and (cookie := self._cookies.filter_cookies(url).output(header="", sep=";")):
            own["Cookie"] = cookie.strip()
        lines = {**self._lines, **_lines_of(own), **_lines_of(headers)}
        return f"POST {url.raw_path_qs} HTTP/1.1\r\n{''.join(lines.values())}\r\n".encode()

    def note_cookies(self, set_cookies: Sequence[str], url: URL) -> None:
        """Keep the cookies of a response, as the SDKs do: some load balancers need them."""
        if self._cookies is None:
            self._cookies = aiohttp.CookieJar()
        self._cookies.update_cookies_from_headers(set_cookies, url)


def _lines_of(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the line of each header by its lower-case name; no text removes a header."""
    return {name.lower(): _line(name, value) if isinstance(value, str) else "" for name, value in headers.items()}


def _line(name: str, value: str) -> str:
    if _FORBIDDEN.search(name) or _FORBIDDEN.search(value):
        raise ValueError("a header with a line break")
    return f"{name}: {value}\r\n"
