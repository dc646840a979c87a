"""Redis memory of an ended answer: ``python -m bench.kept_answers`` takes some twenty seconds.

One gateway and one worker write answers of 500 tokens of prose. MEMORY USAGE is printed, for each answer: that of its
own keys, with the tail apart, which lives for a minute after the end; and a share of the keys that streams have in
common.
"""

import asyncio
import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop
from redis.asyncio import Redis

from bench.markdown import aligned
from bench.stage import Stage, StageFailed, Values
from bench.targets.headrace import Headrace
from shared.broker.keys import tail_key
from tests.fakes.answer import Answer
from tests.system import REPOSITORY, System

_ANSWERS: Final = 10
_TOKENS: Final = 500
#: The tail expires a minute after the end.
_TAIL_WITHIN_S: Final = 90
#: A token of prose has some four characters.
_TOKEN: Final = re.compile(r" ?\w{1,5}|\W")


@dataclass(frozen=True, slots=True)
class Kept:
    """Measured memory in bytes an answer. ``own``: by key, without the tail."""

    own: dict[str, float]
    tail: float
    shared: float
    characters: int
    last_event_id: str
    state: dict[bytes, bytes]
    encoding: str


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """Shape of answers of prose that are over for a minute. They need a provider that sends prose, so a system of
    their own runs beside the stage's."""

    async def measure(self, stage: Stage) -> Values:
        if not isinstance(stage.target, Headrace):
            raise StageFailed("this target keeps no answers in Redis")
        kept = await measure(wait=True)
        by_key = {f"kept_bytes.{key}": size for key, size in kept.own.items()}
        total = sum(kept.own.values()) + kept.shared
        return {"gaps": 0, "duplicates": 0, **by_key, "kept_bytes.shared": kept.shared, "kept_bytes": total}


async def main() -> None:
    kept = await measure(wait=False)
    rows = [["key", "bytes an answer"], *([name, f"{size:.0f}"] for name, size in sorted(kept.own.items()))]
    rows.append(["all of these", f"{sum(kept.own.values()):.0f}"])
    rows.append(["tail, for a minute", f"{kept.tail:.0f}"])
    rows.append(["shared keys", f"{kept.shared:.0f}"])
    print(aligned(rows))
    print(f"\n{kept.characters} characters, events up to {kept.last_event_id}; the state is a {kept.encoding}:")
    print(aligned([["field", "bytes", "value"], *_described(kept.state)]))


async def measure(*, wait: bool) -> Kept:
    """Write the answers and measure them. ``wait``: until their tails have expired, instead of deleting them."""
    with tempfile.TemporaryDirectory() as folder:
        system = System(Path(folder), gateways=1, workers=1, providers=("openai",))
        try:
            await system.start()
            return await _measure(system, wait=wait)
        finally:
            await system.stop()


def prose(tokens: int) -> list[str]:
    """Return the first tokens of a document."""
    text = re.sub(r"[|`*#-]+", "", (REPOSITORY / "docs" / "reliability.md").read_text())
    return _TOKEN.findall(" ".join(text.split()))[:tokens]


async def _measure(system: System, *, wait: bool) -> Kept:
    # A pause after each delta, so that most are an event.
    system.fake.play("prose", Answer(deltas=prose(_TOKENS), delay_s=0.03))
    stream_ids = await asyncio.gather(*(system.post("prose", "Describe each fault.") for _ in range(_ANSWERS)))
    for stream_id in stream_ids:
        await system.ended_unwatched(stream_id, timeout_s=60)
    status = await system.status(stream_ids[0])
    async with system.broker.client() as client:
        tail = sum([await _size(client, tail_key(stream_id)) for stream_id in stream_ids])
        await _drop_tails(client, [tail_key(stream_id) for stream_id in stream_ids], wait=wait)
        own, shared = await _sizes(client, stream_ids)
        example = sorted([key.decode() async for key in client.scan_iter(f"*{stream_ids[0]}:state")])[0]
        state: dict[bytes, Any] = await client.hgetall(example)  # type: ignore[misc]
        encoding = await client.object("ENCODING", example)
    return Kept(
        own={name: total / _ANSWERS for name, total in own.items()},
        tail=tail / _ANSWERS,
        shared=shared / _ANSWERS,
        characters=len(str(status["text"])),
        last_event_id=str(status["last_event_id"]),
        state=state,
        encoding=encoding.decode(),
    )


async def _drop_tails(client: Redis, tails: Sequence[str], *, wait: bool) -> None:
    if not wait:
        await client.delete(*tails)
        return
    async with asyncio.timeout(_TAIL_WITHIN_S):
        while await client.exists(*tails):
            await asyncio.sleep(0.5)


async def _sizes(client: Redis, stream_ids: Sequence[str]) -> tuple[dict[str, int], int]:
    """Return the bytes of the streams' own keys by name, and of the keys that they have in common."""
    own: dict[str, int] = defaultdict(int)
    for stream_id in stream_ids:
        async for key in client.scan_iter(f"*{stream_id}*", count=1000):
            own[key.decode().rpartition(":")[2]] += await _size(client, key)
    shared = 0
    async for key in client.scan_iter("hr:*", count=1000):
        if not any(stream_id in key.decode() for stream_id in stream_ids):
            is_common = await client.type(key) in {b"zset", b"hash"} and b"{" not in key
            shared += await _size(client, key) if is_common else 0
    return own, shared


async def _size(client: Redis, key: str | bytes) -> int:
    return await client.memory_usage(key, samples=0) or 0


def _described(state: dict[bytes, bytes]) -> list[list[str]]:
    largest = sorted(state.items(), key=lambda item: -len(item[1]))
    return [[name.decode(), str(len(value)), value[:60].decode(errors="replace")] for name, value in largest]


if __name__ == "__main__":
    uvloop.run(main())
