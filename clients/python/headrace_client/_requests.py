"""Requests of both clients, without I/O."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx2

from headrace_client._addresses import Gateway, StreamAddress, checked_header, new_idempotency_key
from headrace_client._responses import not_headrace
from headrace_client.errors import HeadraceError
from headrace_client.events import Done

_CONNECT_TIMEOUT_S: Final = 10.0
#: A gateway sends a heartbeat every 15 s; a connection without data for much longer is dead.
_READ_TIMEOUT_S: Final = 60.0
#: Every stream that is read holds a connection. An idle one is given up before the gateway closes it, after 5 s:
#: otherwise a request that is sent at that moment fails.
LIMITS: Final = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=4)
_FORBIDDEN: Final = frozenset({401, 403})


@dataclass(frozen=True)
class Request:
    """One request, safe to repeat. ``content`` and ``headers`` are not shown: they have the prompt and the key."""

    method: str
    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)


def timeouts(read_s: float = _READ_TIMEOUT_S) -> httpx2.Timeout:
    """Return the timeouts of a request; ``read_s`` can shorten the one of each read."""
    return httpx2.Timeout(_CONNECT_TIMEOUT_S, read=max(0.001, min(_READ_TIMEOUT_S, read_s)))


def start_request(gateway: Gateway, body: Mapping[str, Any], idempotency_key: str | None) -> Request:
    """Return the request of a new stream.

    Its ``Idempotency-Key`` makes it safe to repeat after a lost response: the gateway starts one answer.
    """
    url = f"{gateway.base}/chat"
    key = checked_header("idempotency_key", idempotency_key or new_idempotency_key())
    headers = {**gateway.headers(url), "Content-Type": "application/json", "Idempotency-Key": key}
    given = {name: value for name, value in body.items() if value is not None}
    return Request("POST", url, headers, json.dumps(given).encode())


def started(gateway: Gateway, accepted: Mapping[str, Any]) -> StreamAddress:
    """Return the address of the stream that a start has made.

    It has a ticket, so that the answer can be read for longer than a short-lived key is valid.
    """
    try:
        return gateway.stream(accepted["stream_url"])
    except (KeyError, ValueError, TypeError, AttributeError):
        raise not_headrace(202) from None


def chats_request(gateway: Gateway, chat_id: str | None, limit: int, page: str | None) -> Request:
    """Return the request of a page of the chats, or of the turns of one chat."""
    path = "" if chat_id is None else f"/{quote(chat_id, safe='')}"
    query = urlencode({"limit": limit} | ({} if page is None else {"page": page}))
    url = f"{gateway.base}/chats{path}?{query}"
    return Request("GET", url, gateway.headers(url))


def status_request(gateway: Gateway, address: StreamAddress) -> Request:
    return Request("GET", address.status_url, _credentials(gateway, address))


def cancel_requests(gateway: Gateway, address: StreamAddress) -> list[Request]:
    """Return the requests to try in this order, the next one if :func:`is_forbidden`."""
    return [Request("POST", url, gateway.headers(url)) for url in address.cancel_urls()]


def is_forbidden(error: HeadraceError) -> bool:
    return error.status in _FORBIDDEN


def read_request(gateway: Gateway, address: StreamAddress, headers: Mapping[str, str]) -> Request:
    return Request("GET", address.stream_url, {**_credentials(gateway, address), **headers})


def done_of(status: Mapping[str, Any]) -> Done:
    """Return the end of a stream by its status, for a reader that already had all of its events."""
    return Done(
        finish_reason=status.get("finish_reason") or "stop",
        reason=status.get("reason"),
        usage=status.get("usage"),
        usage_by_target=status.get("usage_by_target") or None,
        cost=status.get("cost"),
    )


def _credentials(gateway: Gateway, address: StreamAddress) -> dict[str, str]:
    return {} if address.ticket else gateway.headers(address.stream_url)
