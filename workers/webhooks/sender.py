"""One POST of a webhook, signed as Standard Webhooks has it, to an address that was checked."""

import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from pydantic import SecretStr
from standardwebhooks import Webhook

from shared.version import VERSION
from shared.webhook_hosts import WebhookHosts, WebhookUrlRefused
from workers.webhooks.message import Message

#: Bytes of a reply that are read, so that its connection can be used again.
_MOST_READ: Final = 64 * 1024
_LONGEST_RETRY_AFTER_S: Final = 6 * 3600.0
#: The receiver has no use for webhooks any more.
_GONE: Final = 410


@dataclass(frozen=True, slots=True)
class Failure:
    """A webhook was not accepted. ``detail``: the reason, without any content. ``retry_after_s``: asked for by the
    receiver. ``is_final``: another try is pointless."""

    detail: str
    retry_after_s: float = 0
    is_final: bool = False


class _AddressRefused(OSError):
    """All addresses of a name are refused."""


class Sender:
    """Sends webhooks. Close it after use."""

    def __init__(self, hosts: WebhookHosts, secrets: Sequence[SecretStr], timeout_s: float) -> None:
        self._hosts = hosts
        self._signers = [Webhook(secret.get_secret_value()) for secret in secrets]
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._timeout_s = timeout_s
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}

    async def send(self, url: str, message: Message, *, is_trusted: bool) -> Failure | None:
        """Send a message; None if the receiver has accepted it with a status from 200 to 299. ``is_trusted``: as for
        :meth:`WebhookHosts.check`. Redirects are not followed."""
        if not self._signers:
            return Failure("HEADRACE_WEBHOOK_SECRET is not set for this worker")
        try:
            parts = self._hosts.check(url, is_trusted=is_trusted)
        except WebhookUrlRefused as error:
            return Failure(str(error))
        is_http = parts.scheme == "http"
        with suppress(ValueError):  # of a name
            address = ip_address(parts.hostname or "")
            if problem := self._hosts.refusal_of(address, is_trusted=is_trusted, is_http=is_http):
                return Failure(problem)
        session = self._session(is_trusted=is_trusted, is_http=is_http)
        try:
            async with session.post(
                url, data=message.body, headers=self._headers(message), allow_redirects=False
            ) as reply:
                with suppress(aiohttp.ClientError, TimeoutError):
                    await reply.content.read(_MOST_READ)
                return _failure_of(reply)
        except TimeoutError:
            return Failure(f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
            return Failure(_reason_of(error))

    async def aclose(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _headers(self, message: Message) -> dict[str, str]:
        now = datetime.now(UTC)
        text = message.body.decode()
        return {
            "content-type": "application/json",
            "user-agent": f"headrace/{VERSION}",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signer.sign(message.id, now, text) for signer in self._signers),
        }

    def _session(self, *, is_trusted: bool, is_http: bool) -> aiohttp.ClientSession:
        kind = is_trusted, is_http
        if kind not in self._sessions:
            resolver = _CheckedResolver(self._hosts, is_trusted=is_trusted, is_http=is_http)
            # Without a cache, since the next look-up must be checked too.
            connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=0)
            self._sessions[kind] = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=["accept-encoding"],
            )
        return self._sessions[kind]


class _CheckedResolver(AbstractResolver):
    """Resolves names to those of their addresses that may be connected to; aiohttp connects to no others."""

    def __init__(self, hosts: WebhookHosts, *, is_trusted: bool, is_http: bool) -> None:
        self._hosts = hosts
        self._is_trusted = is_trusted
        self._is_http = is_http
        self._resolver = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        allowed, problem = [], None
        for found in await self._resolver.resolve(host, port, family):
            refusal = self._hosts.refusal_of(
                ip_address(found["host"]), is_trusted=self._is_trusted, is_http=self._is_http
            )
            if refusal is None:
                allowed.append(found)
            problem = problem or refusal
        if not allowed:
            raise _AddressRefused(problem or "no address")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


def _failure_of(reply: aiohttp.ClientResponse) -> Failure | None:
    if 200 <= reply.status < 300:
        return None
    detail = f"HTTP {reply.status}"
    if 300 <= reply.status < 400:
        detail += ", and redirects are not followed"
    return Failure(detail, _retry_after_s(reply), is_final=reply.status == _GONE)


def _retry_after_s(reply: aiohttp.ClientResponse) -> float:
    text = reply.headers.get("retry-after", "")
    with suppress(ValueError, TypeError, OverflowError):
        wait_s = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
        return max(0.0, min(wait_s, _LONGEST_RETRY_AFTER_S))
    return 0


def _reason_of(error: Exception) -> str:
    """Return the reason of an error, without the URL, whose path or query may be a secret."""
    # aiohttp raises its own error from that of the connection. Some of its own are an ssl.SSLError without a reason.
    for cause in (error.__cause__, error):
        if isinstance(cause, _AddressRefused):
            return str(cause)
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {getattr(cause, 'reason', None) or 'failed'}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name was not found"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before the answer"
    if isinstance(error, OSError) and error.strerror:
        return f"no connection: {error.strerror}"
    return f"no answer: {type(error).__name__}"
