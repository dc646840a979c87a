"""The slot map: the master of each slot, as ``CLUSTER SLOTS`` has it."""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

from redis.exceptions import ResponseError

from shared.broker.cluster.address import Node
from shared.broker.cluster.slots import SLOTS


class SlotMap:
    """Masters by slot. A slot without a master keeps its last one, which then replies that the cluster is down."""

    def __init__(self, first: Node) -> None:
        self.owners: list[Node] = [first] * SLOTS
        self.nodes: tuple[Node, ...] = (first,)
        #: Masters without a replica.
        self.alone: tuple[Node, ...] = ()
        self._aliases: dict[Node, Node] = {}  # other addresses of nodes, which redirections may have

    def update(self, reply: Sequence[Any], asked: Node, *, by_name: bool) -> bool:
        """Take over a reply of ``asked``. ``by_name``: prefer host names, since TLS certificates have them. Return
        True if the nodes or their slots have changed. Raises :class:`ResponseError` if it has no master."""
        owners, masters, aliases = list(self.owners), dict[Node, bool](), dict[Node, Node]()
        for first, last, master, *replicas in reply:
            node, *others = _addresses(master, asked, by_name=by_name)
            aliases |= dict.fromkeys(others, node)
            masters[node] = bool(replicas)
            owners[first : last + 1] = [node] * (last + 1 - first)
        if not masters:
            raise ResponseError("CLUSTERDOWN it has no slots yet")
        nodes = tuple(sorted(masters))
        changed = owners != self.owners or nodes != self.nodes
        self.owners, self.nodes, self._aliases = owners, nodes, aliases
        self.alone = tuple(node for node, has_replicas in masters.items() if not has_replicas)
        return changed

    def at(self, host: str, port: int, asked: Node) -> Node:
        """Return the node that a redirection of ``asked`` names."""
        node = Node(asked.host if host in {"", "?"} else host, port)
        return self._aliases.get(node, node)


def _addresses(entry: Sequence[Any], asked: Node, *, by_name: bool) -> list[Node]:
    """Return the addresses of a node in ``CLUSTER SLOTS``, the one to use first. An entry is [preferred endpoint,
    port, id, [name, value, …]]."""
    endpoint, port, *more = entry
    further = dict(_pairs(more[1])) if len(more) > 1 else {}
    hosts = [_text(endpoint), further.get("hostname", ""), further.get("ip", "")]
    if by_name:
        hosts.sort(key=lambda host: not host or _is_ip(host))
    known = [host for host in hosts if host not in {"", "?"}]
    return [Node(host, port) for host in dict.fromkeys(known or [asked.host])]


def _pairs(flat: Sequence[Any]) -> Iterator[tuple[str, str]]:
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        yield _text(name), _text(value)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode()


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
