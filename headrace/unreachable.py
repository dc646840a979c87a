"""Reasons why a connection to a gateway failed, instead of the texts of an HTTP library."""

import socket
import ssl
from collections.abc import Iterator
from typing import Final

import httpx2

OTHER_ADDRESS: Final = "start it with headrace up, or set another address with --url or HEADRACE_URL"
#: The first kind that is among an error and its causes gives the reason.
_REASONS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (ConnectionRefusedError, "connection refused, nothing listens there"),
    (socket.gaierror, "unknown host name"),
    (ssl.SSLCertVerificationError, "the certificate is not trusted"),
    (ssl.SSLError, "TLS failed; is it an http:// address?"),
    (httpx2.ConnectTimeout, "no connection in time; is a firewall in between?"),
    (httpx2.TimeoutException, "no response in time"),
    (httpx2.RemoteProtocolError, "the connection ended early"),
)


def reason_of(error: BaseException) -> str:
    """Return the reason of a failed or broken connection. The error's causes are read too."""
    chain = list(_chain(error))
    for kind, reason in _REASONS:
        for each in chain:
            if isinstance(each, kind):
                verified = getattr(each, "verify_message", "")
                return f"{reason}: {verified}" if verified else reason
    return next((text for each in chain if (text := getattr(each, "message", "") or str(each))), type(error).__name__)


def cannot_connect(error: BaseException) -> bool:
    """Return True if no connection was made: nothing listens, the name is unknown, or the certificate is invalid."""
    return any(isinstance(each, httpx2.ConnectError) for each in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__
