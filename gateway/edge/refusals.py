"""Responses to requests that do not reach the application."""

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from gateway.edge.headers import ALWAYS, NO_STORE

#: Limit for the request line plus all fields. Tokens of identity providers are the largest legitimate fields.
MOST_HEAD_BYTES: Final = 32 * 1024
MOST_FIELDS: Final = 100


@dataclass(frozen=True, slots=True)
class Refusal:
    """The response to a request that does not reach the application."""

    status: HTTPStatus
    code: str
    message: str
    retry_after_s: int | None = None

    def render(self) -> bytes:
        error = {"code": self.code, "message": self.message, "retryable": self.retry_after_s is not None}
        body = json.dumps({"error": error}).encode()
        fields = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *([(b"retry-after", b"%d" % self.retry_after_s)] if self.retry_after_s is not None else []),
            NO_STORE,
            *ALWAYS,
        ]
        lines = [b"HTTP/1.1 %d %b" % (self.status, self.status.phrase.encode())]
        lines += [b"%b: %b" % field for field in fields]
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Refused(Exception):
    """Leaves the parser through the server, which then requests a response. Made anew each time: a shared instance
    would keep the frames, and so the connections, that it was ever raised in."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


NOT_HTTP: Final = Refusal(HTTPStatus.BAD_REQUEST, "bad_request", "the request is not valid HTTP/1.1")
TOO_LARGE: Final = Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "headers_too_large",
    f"the request's headers exceed {MOST_HEAD_BYTES} bytes or {MOST_FIELDS} fields; send fewer or shorter headers",
)
FULL: Final = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", "all connections are in use; try again shortly", 2
)


def bad(message: str) -> Refused:
    return Refused(Refusal(HTTPStatus.BAD_REQUEST, "bad_request", message))
