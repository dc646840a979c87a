"""Replies of a node that send a command elsewhere, and the slots that commands belong to."""

import re
from typing import Any, Final, NamedTuple

from redis.exceptions import ResponseError

from shared.broker.cluster.slots import slot_of
from shared.broker.pipeline_connection import Command

_REDIRECT: Final = re.compile(r"(MOVED|ASK) (\d+) (.*):(\d+)")
#: Places of the key in commands that have it elsewhere than behind their name.
_KEY_AT: Final = {"EVALSHA": 3, "EVAL": 3, "MEMORY": 2, "OBJECT": 2}
_KEYLESS: Final = frozenset({"CLUSTER", "CONFIG", "DBSIZE", "INFO", "PING", "SCAN", "SCRIPT", "TIME"})


class SlotMoved(ResponseError):
    """The slot is served by another node, or by none at the moment; the command was not executed, and the next try
    finds the right one. Its text is classified as a failover."""


class Redirect(NamedTuple):
    """A reply MOVED or ASK. ``host`` is empty if it is the one that was asked."""

    asks: bool
    slot: int
    host: str
    port: int


def redirect_in(reply: Any) -> Redirect | None:
    if isinstance(reply, ResponseError) and (found := _REDIRECT.match(str(reply))) is not None:
        kind, slot, host, port = found.groups()
        return Redirect(kind == "ASK", int(slot), host, int(port))
    return None


def is_away(reply: Any) -> bool:
    """Return True if a node did not execute a command because of its slot: another has it, or a part of it, or
    none."""
    return isinstance(reply, ResponseError) and str(reply).startswith(("MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN"))


def slot_of_command(command: Command) -> int | None:
    """Return the slot of a command's first key; None if it has no key."""
    name = command[0]
    if name in _KEYLESS:
        return None
    if name == "XREAD":
        at = command.index("STREAMS") + 1
    elif name in {"EVALSHA", "EVAL"} and not int(command[2]):
        return None
    else:
        at = _KEY_AT.get(str(name), 1)
    key = command[at]
    return slot_of(key if isinstance(key, str | bytes) else str(key))
