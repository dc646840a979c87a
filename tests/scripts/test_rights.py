"""Scripts under a Redis user that lacks one right: nothing may be half-written (rule S4)."""

import re
from collections.abc import AsyncIterator

import pytest

from shared.broker.client import Client, connect
from shared.protocol.lifecycle import STEPS, froms_and_tos
from tests.broker import Broker
from tests.scripts.stream import READERS, Stream, all_scripts
from tests.scripts.test_transitions import brought_to, calls_of

#: Scripts that write one thing only, or whose writes a repeated call completes (rule A6).
_ALL = ("reset", "on", "nopass", "~*", "&*", "+@all")
_REPEATED = frozenset({"append", "renew"})


@pytest.fixture
async def limited(client: Client, scripts_broker: Broker) -> AsyncIterator[Client]:
    """A client as a user whose rights a test takes away."""
    await client.execute_command("ACL", "SETUSER", "limited", *_ALL)  # type: ignore[no-untyped-call]
    limited = connect(scripts_broker.url.replace("redis://", "redis://limited:any@"))
    yield limited
    await limited.aclose()
    await client.execute_command("ACL", "DELUSER", "limited")  # type: ignore[no-untyped-call]


#: Rules that take a right away, besides those for single commands.
_KEYS_AND_CHANNELS = {
    "channels": ("resetchannels",),
    "keys of accounts": ("resetkeys", "~hr:[^a]*"),
    "keys besides the stream's own": ("resetkeys", "~hr:{*"),
}


@pytest.mark.parametrize("name", sorted(STEPS.keys() - _REPEATED))
async def test_a_missing_right_leaves_nothing_half_written(client: Client, limited: Client, name: str) -> None:
    commands = sorted(set(re.findall(r"redis\.p?call\('(\w+)'", all_scripts()[name].source)))
    rules = {command: (f"-{command.lower()}",) for command in commands} | _KEYS_AND_CHANNELS
    half_written = [right for right in rules if not await _is_refused_whole(client, limited, name, rules[right])]
    assert half_written == []


async def _is_refused_whole(client: Client, limited: Client, name: str, rules: tuple[str, ...]) -> bool:
    """Return False if the script fails without the right and has written before."""
    await client.flushall()
    await client.execute_command("ACL", "SETUSER", "limited", *_ALL, *rules)  # type: ignore[no-untyped-call]
    stream = Stream(client)
    holder = await brought_to(stream, [*froms_and_tos(name)[0]][-1])
    await stream.acknowledge()
    call = calls_of(name, stream, holder)[0]
    if name == "drop":
        await stream.set(ended=1)
        await client.delete(stream.keys[READERS])
    await client.execute_command("SCRIPT", "LOAD", call.script.source)  # type: ignore[no-untyped-call]
    before = await everything(client)
    (reply,) = await limited.exchange([("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.arguments)])
    return not isinstance(reply, Exception) or await everything(client) == before


async def everything(client: Client) -> dict[bytes, bytes]:
    return {key: await client.dump(key) for key in sorted([key async for key in client.scan_iter()])}
