"""Meaning of the gateway's responses, without I/O."""

import email.utils
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from headrace_client.errors import HeadraceError

_RETRYABLE: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
#: An error text of another server may be a whole page.
_LONGEST_MESSAGE: Final = 500


def json_of(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Return the JSON object of a successful response. Raises :class:`HeadraceError` for any other."""
    if not 200 <= status < 300:
        raise failure_of(status, headers, body)
    if not body:
        raise ended_early()
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise not_headrace(status)
    return parsed


def failure_of(status: int, headers: Mapping[str, str], body: bytes) -> HeadraceError:
    """Return the error of an unsuccessful response: the gateway's own, or that of a proxy before it."""
    after = retry_after_s(headers.get("retry-after", ""))
    try:
        error = json.loads(body)["error"]
        code, message, retryable = str(error["code"]), str(error["message"]), bool(error["retryable"])
    except (ValueError, KeyError, TypeError):  # a proxy's page, not a gateway's response
        code, message, retryable = f"http_{status}", f"HTTP {status}", status in _RETRYABLE
    return HeadraceError(
        code,
        message[:_LONGEST_MESSAGE],
        retryable=retryable,
        status=status,
        retry_after_s=after if retryable else None,
    )


def not_headrace(status: int) -> HeadraceError:
    return HeadraceError(
        "not_headrace", "url: not a Headrace gateway; check the address", retryable=False, status=status
    )


def unreachable(error: Exception) -> HeadraceError:
    """Return the error of a connection that failed or broke."""
    return HeadraceError("unreachable", str(error) or type(error).__name__, retryable=True)


def ended_early() -> HeadraceError:
    return HeadraceError("unreachable", "the connection ended early", retryable=True)


def retry_after_s(value: str) -> float | None:
    """Return the seconds of a ``Retry-After``, which has seconds or a date; None if it has neither."""
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())
