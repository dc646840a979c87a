"""Generated responses of providers, good and broken, end as their only right outcomes (``tests/wires``)."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.system import System
from tests.wires.running import failures, shrunk
from tests.wires.through_system import failures_of_system
from workers.providers.errors import Upstream
from workers.providers.framing import EventCutter
from workers.providers.http_calls import ProviderCall
from workers.providers.openai_reader import ChatCompletionReader
from workers.providers.reading import deltas_of
from workers.providers.response_body import ResponseBody
from workers.providers.tool_calls import ToolCalls

SEED = 17
BATCH = 1000


@pytest.mark.parametrize("at", range(0, 3 * BATCH, BATCH))
async def test_generated_streams_are_read_as_sent(at: int) -> None:
    found = await failures(SEED, range(at, at + BATCH))
    assert not found, "\n\n".join([await shrunk(failure) for failure in found[:3]])


async def test_generated_streams_arrive_as_sent_through_a_whole_system(wire_system: System) -> None:
    found = await failures_of_system(wire_system, SEED, range(100))
    assert not found, "\n\n".join(found[:3])


# --- time after a finish reason

END = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
GRACE_S = 1


async def _usage_after(body: AsyncIterator[bytes]) -> object:
    call = ProviderCall(Upstream("openai", "host", "KEY", "URL", "openai"), "m", ())
    reader = ChatCompletionReader(call, ToolCalls("openai"))
    async for _ in deltas_of(ResponseBody(body), EventCutter(), reader, GRACE_S):
        pass
    assert call.finished is not None
    assert call.finished.reason == "stop"
    return call.finished.usage


async def test_a_slow_event_after_the_reason_is_no_silence() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield END
        for at in range(0, len(USAGE), 10):
            await asyncio.sleep(GRACE_S / 4)
            yield USAGE[at : at + 10]
        await asyncio.Event().wait()

    assert await _usage_after(body()) is not None


async def test_silence_and_endless_keep_alives_after_the_reason_end_the_answer() -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield END
        await asyncio.Event().wait()

    async def pinging() -> AsyncIterator[bytes]:
        yield END
        while True:
            await asyncio.sleep(GRACE_S / 4)
            yield b": ping\n\n"

    async with asyncio.timeout(GRACE_S * 40):
        assert await _usage_after(silent()) is None
        assert await _usage_after(pinging()) is None
