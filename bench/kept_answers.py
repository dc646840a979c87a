"""Redis memory of an ended answer: ``python -m bench.kept_answers`` takes some ten seconds.

One gateway and one worker write answers of 500 tokens of prose. MEMORY USAGE is printed, for each answer: that of its
own keys, with the tail apart, which lives for a minute after the end; and a share of the keys that streams have in
common.
"""

import asyncio
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.table import aligned
from shared.broker.keys import tail_key
from tests.fakes.answer import Answer
from tests.system import REPOSITORY, System

_ANSWERS: Final = 10
_TOKENS: Final = 500
#: A token of prose has some four characters.
_TOKEN: Final = re.compile(r" ?\w{1,5}|\W")


def prose(tokens: int) -> list[str]:
    """Return the first tokens of a document."""
    text = re.sub(r"[|`*#-]+", "", (REPOSITORY / "docs" / "reliability.md").read_text())
    return _TOKEN.findall(" ".join(text.split()))[:tokens]


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        system = System(Path(folder), gateways=1, workers=1, providers=("openai",))
        try:
            await system.start()
            await _measure(system)
        finally:
            await system.stop()


async def _measure(system: System) -> None:
    # A pause after each delta, so that most are an event.
    system.fake.play("prose", Answer(deltas=prose(_TOKENS), delay_s=0.03))
    stream_ids = await asyncio.gather(*(system.post("prose", "Describe each fault.") for _ in range(_ANSWERS)))
    for stream_id in stream_ids:
        await system.ended_unwatched(stream_id, timeout_s=60)
    status = await system.status(stream_ids[0])
    characters = len(str(status["text"]))
    own: dict[str, int] = defaultdict(int)
    async with system.broker.client() as client:
        tails = [await client.memory_usage(tail_key(stream_id), samples=0) or 0 for stream_id in stream_ids]
        await client.delete(*map(tail_key, stream_ids))
        for stream_id in stream_ids:
            async for key in client.scan_iter(f"*{stream_id}*", count=1000):
                own[key.decode().rpartition(":")[2]] += await client.memory_usage(key, samples=0) or 0
        example = sorted([key.decode() async for key in client.scan_iter(f"*{stream_ids[0]}:state")])
        encoding = await client.object("ENCODING", example[0])
        state: dict[bytes, Any] = await client.hgetall(example[0])  # type: ignore[misc]
        shared = 0
        async for key in client.scan_iter("hr:*", count=1000):
            if not any(stream_id in key.decode() for stream_id in stream_ids):
                size = await client.memory_usage(key, samples=0) or 0
                shared += size if await client.type(key) in {b"zset", b"hash"} and b"{" not in key else 0
    rows = [["key", "bytes an answer"], *([name, f"{total / _ANSWERS:.0f}"] for name, total in sorted(own.items()))]
    rows.append(["all of these", f"{sum(own.values()) / _ANSWERS:.0f}"])
    rows.append(["tail, for a minute", f"{sum(tails) / _ANSWERS:.0f}"])
    rows.append(["shared keys", f"{shared / _ANSWERS:.0f}"])
    print(aligned(rows))
    print(f"\n{characters} characters, events up to {status['last_event_id']}; the state is a {encoding.decode()}:")
    print(aligned([["field", "bytes", "value"], *_described(state)]))


def _described(state: dict[bytes, bytes]) -> list[list[str]]:
    largest = sorted(state.items(), key=lambda item: -len(item[1]))
    return [[name.decode(), str(len(value)), value[:60].decode(errors="replace")] for name, value in largest]


if __name__ == "__main__":
    uvloop.run(main())
