"""The order of the tests of a URL, and the gateway that it is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.doctor import requests
from headrace.doctor.findings import Finding, note
from headrace.doctor.gateway_calls import GatewayCalls, Unreachable
from headrace.doctor.gateways import DEMO, Seen
from headrace.doctor.silence import examine_silence, silence_s
from headrace.doctor.streams import Streams


@dataclass(frozen=True, slots=True)
class Extent:
    """Options of the tests. ``model``: to stream with, instead of the demo. ``origin``: of a page that calls the
    gateway. ``slow``: wait for timeouts, and send the largest body."""

    model: str | None
    origin: str | None
    slow: bool


async def examine_url(
    gateway: GatewayCalls,
    seen: Seen,
    addresses: Sequence[str],
    extent: Extent,
    progress: Callable[[str], None],
) -> list[Finding]:
    """Examine the proxies between this machine and the gateway. ``addresses``: of gateways to compare with.
    ``progress`` prints a notice before a wait or a cost."""
    direct = await _direct(gateway, addresses)
    try:
        findings = [*requests.arrived(seen, gateway), *await requests.caches(gateway)]
        findings += await requests.body_limit(gateway, seen, whole=extent.slow)
        findings += await requests.clear_http(gateway)
        findings += await requests.http_2(gateway)
        if extent.origin is not None:
            findings += await requests.cors(gateway, direct, extent.origin)
        return [*findings, *await _streams(gateway, direct, seen, extent, progress)]
    finally:
        if direct is not None:
            await direct.http.aclose()


async def _streams(
    gateway: GatewayCalls, direct: GatewayCalls | None, seen: Seen, extent: Extent, progress: Callable[[str], None]
) -> list[Finding]:
    name, has_demo = f"stream {gateway.shown}", DEMO in seen.models
    model = DEMO if has_demo and extent.model is None else extent.model
    if not seen.accepts:
        return [note("stream", name, "not tested: the gateway accepts no new requests")]
    if model is None:
        return [
            note("stream", name, "not tested: no demo model here; --model tests with another, at the cost of a call")
        ]
    if model != DEMO:
        progress(f"one request goes to {model}, which may cost money")
    findings = await Streams(gateway, direct, model).examine()
    if not extent.slow:
        return [*findings, note("idle_timeout", name, "timeouts not tested: --slow waits for them")]
    if not has_demo:
        return [*findings, note("idle_timeout", name, "timeouts not tested: that needs the demo model")]
    progress(f"waiting {silence_s(seen)} s for a silent model")
    return [*findings, *await examine_silence(gateway, seen)]


async def _direct(gateway: GatewayCalls, addresses: Sequence[str]) -> GatewayCalls | None:
    """Return the first of the addresses that reaches a gateway and is not the URL itself."""
    for address in addresses:
        if address.rstrip("/") == gateway.url:
            return None
        direct = gateway.at(address.rstrip("/"))
        try:
            reply = await direct.call("GET", "/v1/models")
        except Unreachable:
            reply = None
        if reply is not None and reply.status == 200:
            return direct
        await direct.http.aclose()
    return None
