"""Decides by NetworkPolicies which connections a cluster allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or an ``address`` outside the cluster."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = "default"
    address: str | None = None

    @property
    def is_pod(self) -> bool:
        return self.address is None


def is_allowed(policies: Sequence[Mapping[str, Any]], source: Peer, target: Peer, port: int, protocol: str) -> bool:
    """Return whether the policies, all of the namespace "default", allow the connection at both ends."""
    leaves = _allows(policies, "Egress", source, target, port, protocol)
    return leaves and _allows(policies, "Ingress", target, source, port, protocol)


def _allows(
    policies: Sequence[Mapping[str, Any]], direction: str, pod: Peer, other: Peer, port: int, protocol: str
) -> bool:
    """Return whether one end allows it. A pod that no policy selects for this direction allows everything."""
    if not pod.is_pod or pod.namespace != "default":
        return True
    specs = [one["spec"] for one in policies]
    selecting = [s for s in specs if direction in s["policyTypes"] and _selects(s["podSelector"], pod.labels)]
    rules = [rule for spec in selecting for rule in spec.get(direction.lower(), ())]
    peers = "to" if direction == "Egress" else "from"
    return not selecting or any(
        _has_port(rule, port, protocol) and any(_is_peer(one, other) for one in rule[peers]) for rule in rules
    )


def _has_port(rule: Mapping[str, Any], port: int, protocol: str) -> bool:
    return any(one["port"] == port and one.get("protocol", "TCP") == protocol for one in rule["ports"])


def _is_peer(described: Mapping[str, Any], peer: Peer) -> bool:
    if "ipBlock" in described:
        block = described["ipBlock"]
        if peer.address is None:
            return False
        address = ip_address(peer.address)
        return address in ip_network(block["cidr"]) and not any(
            address in ip_network(excluded) for excluded in block.get("except", ())
        )
    namespace = {"kubernetes.io/metadata.name": peer.namespace}
    in_namespace = (
        _selects(described["namespaceSelector"], namespace)
        if "namespaceSelector" in described
        else peer.namespace == "default"
    )
    return peer.is_pod and in_namespace and _selects(described.get("podSelector", {}), peer.labels)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    expressions = selector.get("matchExpressions", ())
    assert {one["operator"] for one in expressions} <= {"In"}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(one["key"]) in one["values"] for one in expressions
    )
