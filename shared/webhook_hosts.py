"""Hosts that webhooks may be sent to, and the check of a URL and of the addresses behind its name.

A request chooses its URL freely, so its host must be listed. A name may lead to any address, for example of the own
network: an address that is not public must be listed by itself.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LONGEST_URL: Final = 2048
_NAME: Final = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One listed host. ``name``: lower case, ``*.`` stands for any labels before. ``network``: of addresses, instead
    of a name. ``port``: None for all."""

    name: str
    port: int | None
    network: Network | None = None


def parse_host_entry(text: str) -> HostEntry:
    """Parse ``example.com``, ``*.example.com:8443``, ``10.0.0.5``, ``10.0.0.0/8`` or ``[::1]:9000``. Raises
    ValueError."""
    text = text.lower()
    try:
        return HostEntry("", None, ip_network(text))
    except ValueError:
        pass
    if "://" in text or "/" in text:
        raise ValueError("not a host")
    parts = urlsplit(f"//{text}")
    host, port = parts.hostname or "", parts.port  # raises ValueError
    if parts.username is not None or port == 0:
        raise ValueError("not a host")
    if (address := _address(host)) is not None:
        return HostEntry("", port, ip_network(address))
    if not _NAME.fullmatch(host):
        raise ValueError("not a host")
    return HostEntry(host, port)


class WebhookUrlRefused(ValueError):
    """A URL cannot be used; the message names the problem and the remedy, and does not repeat the URL."""


@dataclass(frozen=True)
class WebhookHosts:
    """The listed hosts."""

    entries: tuple[HostEntry, ...] = ()

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        listed = tuple(entry.network for entry in self.entries if entry.network is not None)
        has_localhost = any(entry.name == "localhost" for entry in self.entries)
        return listed + (_LOOPBACK if has_localhost else ())

    def check(self, url: str, *, is_trusted: bool = False) -> SplitResult:
        """Return the parts of a URL. ``is_trusted``: the operator has set it, so its host need not be listed. Raises
        :class:`WebhookUrlRefused`."""
        parts = _split(url)
        host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
        address = _address(host)
        if not is_trusted and not self._lists(host, port, address):
            problem = "its host is not allowed here" if self.entries else "this server allows no hosts"
            raise WebhookUrlRefused(f"{problem}; have the operator add it to HEADRACE_WEBHOOK_HOSTS")
        if parts.scheme == "http" and not (is_trusted or self._may_be_private(host, address)):
            raise WebhookUrlRefused("http is for listed private and loopback addresses only; use https://")
        return parts

    def refusal_of(self, address: Address, *, is_trusted: bool, is_http: bool) -> str | None:
        """Return the reason for which an address may not be connected to, with the remedy; None if it may."""
        if is_public(address):
            return "http is for private and loopback addresses only; use https://" if is_http else None
        if is_trusted or any(address in network for network in self._networks):
            return None
        return f"{address} is not a public address; add it, or its network, to HEADRACE_WEBHOOK_HOSTS"

    def _lists(self, host: str, port: int, address: Address | None) -> bool:
        return any(
            entry.port in {None, port}
            and (
                _matches(entry.name, host)
                if address is None
                else entry.network is not None and address in entry.network
            )
            for entry in self.entries
        )

    def _may_be_private(self, host: str, address: Address | None) -> bool:
        """Return False if a host is certainly at a public address, or at one that is not listed. A name is looked up
        with each delivery only."""
        if address is not None:
            return not is_public(address)
        return host == "localhost" or any(not network.is_global for network in self._networks)


def is_public(address: Address) -> bool:
    """Return True for an address of the internet. An IPv6 address that stands for an IPv4 address counts as that."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def _split(url: str) -> SplitResult:
    if len(url) > LONGEST_URL:
        raise WebhookUrlRefused(f"longer than {LONGEST_URL} characters; use a shorter URL")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise WebhookUrlRefused("not a URL; write it in ASCII, without spaces")
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0
    except ValueError:
        raise WebhookUrlRefused("not a URL; write it as https://example.com/hook") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not has_port:
        raise WebhookUrlRefused("not an http or https URL; write it as https://example.com/hook")
    if "@" in parts.netloc:
        raise WebhookUrlRefused("has credentials before its host; verify the signature of webhooks instead")
    if parts.fragment:
        raise WebhookUrlRefused("has a fragment, which is never sent; remove it")
    return parts


def _matches(name: str, host: str) -> bool:
    return host.endswith(name[1:]) and len(host) >= len(name) if name.startswith("*.") else host == name


def _address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
