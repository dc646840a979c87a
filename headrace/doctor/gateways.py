"""Findings about the gateway at a URL, over HTTP alone, as far as the scopes of the key allow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from headrace.check_rows import WRONG
from headrace.doctor import remedies
from headrace.doctor.clocks import clock
from headrace.doctor.findings import Finding, note, ok, wrong
from headrace.doctor.gateway_calls import GatewayCalls, Reply, Unreachable
from headrace.doctor.work import queue
from headrace.unreachable import OTHER_ADDRESS
from shared.version import VERSION

DEMO: Final = "demo/demo"
#: Headers of the request that the gateway describes.
PROBE: Final = {"Last-Event-ID": "1-1", "Idempotency-Key": "headrace-doctor"}
_MISSING: Final = "credentials are missing"


@dataclass(frozen=True, slots=True)
class Seen:
    """A gateway as seen from here. ``connection``: its view of a request; empty if it has none. ``is_usable``:
    further tests make sense. ``accepts``: a worker takes new requests, as far as is known."""

    findings: Sequence[Finding]
    is_usable: bool = False
    accepts: bool = True
    connection: dict[str, Any] = field(default_factory=dict)
    models: Sequence[str] = ()

    @property
    def heartbeat_s(self) -> float:
        return float(self.connection.get("heartbeat_s", 15))

    @property
    def max_body_bytes(self) -> int:
        return int(self.connection.get("max_body_bytes", 32 * 1024 * 1024))


async def examine_gateway(gateway: GatewayCalls, *, asks_for_overview: bool) -> Seen:
    """Examine one gateway. ``asks_for_overview``: Redis cannot be asked."""
    name = f"gateway {gateway.shown}"
    try:
        reply = await gateway.call("GET", "/connection", headers=PROBE)
        listed = await gateway.call("GET", "/v1/models")
        ready = await gateway.call("GET", "/readyz")
        overview = await gateway.call("GET", "/ops/overview") if asks_for_overview else None
    except Unreachable as error:
        return Seen([wrong("gateway", name, f"{error}; {OTHER_ADDRESS}")])
    if (problem := _refusal(gateway, listed, name)) is not None:
        return Seen([problem])
    models = [str(model["id"]) for model in listed.body["data"]]
    findings = [*_connection(reply, name), *_readiness(ready, name), _models(models, name)]
    if overview is not None:
        findings += _overview(overview, name)
    connection = reply.body if reply.status == 200 and isinstance(reply.body, dict) else {}
    accepts = not any(each.check == "ready" and each.state == WRONG for each in findings)
    return Seen(findings, is_usable=True, accepts=accepts, connection=connection, models=models)


def _refusal(gateway: GatewayCalls, reply: Reply, name: str) -> Finding | None:
    """Return the reason why this is no gateway, or none that serves us."""
    error = reply.error
    if reply.status == 200 and isinstance(reply.body, dict) and isinstance(reply.body.get("data"), list):
        return None
    if error is None:
        return wrong("gateway", name, _of_other_server(reply))
    if reply.status == 401 and gateway.has_key and error["message"].startswith(_MISSING):
        detail = "the key is sent and does not arrive: a proxy removes the header Authorization; let it pass"
        return wrong("authorization", name, detail, remedies.AUTHORIZATION)
    detail = reply.text
    if reply.status == 401:
        detail = f"{error['message']}; {'check' if gateway.has_key else 'set'} HEADRACE_API_KEY or --key"
    elif error["code"] == "not_local":
        detail = f"{error['message']}; behind a proxy, a gateway needs HEADRACE_AUTH=keys"
    return wrong("gateway", name, detail)


def _of_other_server(reply: Reply) -> str:
    if reply.status in {401, 407}:
        return f"{reply.text}: a proxy asks for credentials of its own; let requests pass"
    if reply.status in {502, 503, 504}:
        return f"{reply.text}: the proxy reaches no gateway; check its upstream address"
    return f"{reply.text}: not a Headrace gateway, or a proxy answers for it; check the URL and its path"


def _connection(reply: Reply, name: str) -> Iterator[Finding]:
    match reply.body:
        case {"version": str(version), "at": str(at), "http_version": str(), "headers": list()}:
            pass
        case _:
            yield note(
                "version", name, f"older than this command ({VERSION}): it does not say what arrives of a request"
            )
            return
    if version == VERSION:
        yield ok("version", name, f"version {version}, as this command")
    else:
        yield note("version", name, f"version {version}, this command {VERSION}; use the same")
    offset_s = datetime.fromisoformat(at).timestamp() - (reply.sent_at + reply.took_s / 2)
    yield clock("gateway_clock", name, offset_s, reply.took_s / 2)


def _readiness(reply: Reply, name: str) -> Iterator[Finding]:
    match reply.status, reply.body:
        case 200, {"status": "ready", "accepting": True}:
            yield ok("ready", name, "ready, accepts requests")
        case 200, {"status": "ready", "accepting": False}:
            advice = "no worker takes requests, or Redis is full; resumes work"
            yield wrong("ready", name, f"ready, but accepts no new requests: {advice}")
        case 503, {"reason": str(reason), "error": {"message": str(message)}}:
            yield wrong("ready", name, f"not ready ({reason}): {message}")
        # Other replies are a proxy's that hides this path, as it should.


def _models(models: Sequence[str], name: str) -> Finding:
    if not models:
        return wrong("models", name, "offers no models: does a worker run, and does the key allow one?")
    return ok("models", name, f"{len(models)} models")


def _overview(reply: Reply, name: str) -> Iterator[Finding]:
    """Judge the state of the system as the gateway reports it to an operator."""
    match reply.body:
        case {"workers": list(workers), "gateways": list(gateways), "waiting": int(waiting)} if reply.status == 200:
            pass
        case _:
            detail = "workers, providers and queue not tested: that needs a key with the scope admin"
            yield note("overview", name, f"{detail}, or HEADRACE_REDIS_URL ({reply.text})")
            return
    if workers:
        yield ok("workers", "workers", f"{len(workers)} running")
    else:
        yield wrong("workers", "workers", "none reports: requests wait; start headrace worker")
    for process in [*workers, *gateways]:
        title = f"{process['id']} {process['host']}"
        if process.get("version", VERSION) != VERSION:
            yield note("version", title, f"version {process['version'] or 'unknown'}, this command {VERSION}")
        if process["other_configuration"]:
            yield wrong("configuration", title, "has another configuration than the newest; run headrace reload")
    for target in reply.body["left_alone"]:
        yield wrong("circuit_breaker", f"provider {target}", "circuit breaker open: its last calls failed")
    yield queue(waiting, float(reply.body["oldest_waiting_s"]), int(reply.body["live"]))
    redis = reply.body["redis"]
    limit = f" of {redis['limit_bytes'] / 1e6:.0f} MB" if redis["limit_bytes"] else ", no limit"
    yield ok("redis_memory", "Redis", f"{redis['used_bytes'] / 1e6:.0f} MB used{limit}")
