"""Tests that our Redis user has the rights to all that we use, before a missing one stops a stream half way.

``rights.lua`` checks each command on each kind of key, and each channel, with the rights of the user itself.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final

from shared.broker import declarations
from shared.broker.client import RedisConnection, run_script
from shared.broker.declarations import RIGHTS, Call, Script
from shared.broker.keys import gateway_channel, worker_channel
from shared.broker.trouble import missing_rights

#: Pattern of an ACL, by a key that it covers.
KEYS: Final[Mapping[str, str]] = {"hr:{desk}:probe": "~hr:*", "arq:job:{desk}probe": "~arq:*"}
CHANNELS: Final = (gateway_channel("probe"), worker_channel("probe"))

#: Commands that Python sends, arq's included. Those of the scripts are read from the scripts.
_SENT: Final = (
    *("BZPOPMIN", "DEL", "EXISTS", "EXPIRE", "GET", "HGET", "HGETALL", "HKEYS", "HMGET", "HSET", "INCR"),
    *(
        "MGET",
        "PEXPIRE",
        "PEXPIREAT",
        "PSETEX",
        "SET",
        "SETRANGE",
        "XLEN",
        "XREAD",
        "ZADD",
        "ZCARD",
        "ZPOPMAX",
        "ZPOPMIN",
        "ZRANDMEMBER",
        "ZRANGE",
        "ZRANGEBYSCORE",
    ),
    *("ZRANK", "ZREM", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE"),
)
#: Commands without a key, as they are sent.
_KEYLESS: Final = ("EXEC", "INFO memory", "MULTI", "PING", "SCRIPT LOAD return", "TIME")
#: Commands with a key in another place than the first.
_FORMS: Final = {"XREAD": "XREAD COUNT 1 STREAMS {key} 0-0", "MEMORY": "MEMORY USAGE {key}"}
_ON_CHANNELS: Final = ("SPUBLISH {channel} x", "SSUBSCRIBE {channel}")


def commands() -> list[str]:
    """Return the names of all commands that take a key."""
    sources = [script.source for script in vars(declarations).values() if isinstance(script, Script)]
    called = {name for source in sources for name in re.findall(r"redis\.p?call\('(\w+)'", source)}
    keyless = {each.split()[0] for each in (*_KEYLESS, *_ON_CHANNELS)}
    return sorted((called | {*_SENT, "MEMORY"}) - keyless)


async def check_rights(connection: RedisConnection, key: str = "hr:probe") -> None:
    """Raise :class:`BrokerUnfit` with the names of all rights that are missing. Raises also
    :class:`BrokerUnavailable`. ``key``: any of ours, of a slot of the server; it is not touched."""
    names, checks = zip(*_checks(), strict=True)
    call = Call(RIGHTS, [key], ["\n".join(checks)], _parse)
    allowed = await run_script(connection, call)
    if missing := _summary([name for name, right in zip(names, allowed, strict=True) if not right]):
        raise missing_rights(missing, connection.target)


def _checks() -> Iterator[tuple[tuple[str, str], str]]:
    """Yield (command, pattern of its key or channel) and the line that tests it."""
    for name, (key, pattern) in product(commands(), KEYS.items()):
        # More arguments than the command takes: old servers crash if an expected key is missing.
        yield (name, pattern), _FORMS.get(name, f"{name} {{key}} {{key}} {{key}} {{key}}").format(key=key)
    for line in _KEYLESS:
        yield (" ".join(line.split()[:2] if line.startswith("SCRIPT") else line.split()[:1]), ""), line
    for form, channel in product(_ON_CHANNELS, CHANNELS):
        yield (form.split()[0], "&hr:*"), form.format(channel=channel)


def _summary(denied: Sequence[tuple[str, str]]) -> str:
    """Name the patterns on which no command is allowed, and then the other commands that are missing."""
    tested = {name for name, _ in _checks()}
    patterns = sorted({pattern for _, pattern in tested if pattern})
    closed = [each for each in patterns if {pair for pair in tested if pair[1] == each} <= {*denied}]
    by_command: dict[str, set[str]] = {}
    for command, pattern in sorted(set(denied)):
        if pattern not in closed:
            by_command.setdefault(command, set()).add(pattern)
    named = [f"the {'channels' if each.startswith('&') else 'keys'} {each}" for each in closed]
    for command, where in by_command.items():
        is_everywhere = where == {pattern for each, pattern in tested if each == command} - {*closed}
        named.append(f"the command {command}" + ("" if is_everywhere else f" on {' '.join(sorted(where))}"))
    return ", ".join(named)


def _parse(reply: Any) -> list[bool]:
    return [bool(each) for each in reply]
