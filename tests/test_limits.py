"""Limits are exact over all gateways, and unused reservations are given back."""

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from shared.broker.ending import COUNTED
from tests.credentials import JWT_SETTINGS, bearer, boot_credentials, make_key, run_headrace
from tests.fakes.answer import Answer, Counts
from tests.responses import code_of
from tests.system import System, ask

TRIES = 200
REQUESTS, STREAMS = 25, 10
#: Each request has four tokens of prompt, as estimated, and up to 96 of output.
PROMPT, COST = "x" * 16, 100
LIMITS = {"tokens_per_minute": 12 * COST, "tokens_per_day": 30 * COST}
#: Requests in a row of a client with one slot.
IN_A_ROW = int(os.environ.get("HEADRACE_IN_A_ROW", "300"))
names = (f"user-{n}" for n in itertools.count())


@pytest.fixture(scope="module")
async def limited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Two gateways whose only limits are those of API keys."""
    system = System(
        tmp_path_factory.mktemp("limited"),
        gateways=2,
        workers=1,
        providers=("openai",),
        auth="keys,jwt",
        **JWT_SETTINGS,
    )
    try:
        system.http.headers.update(boot_credentials())
        await system.start()
        del system.http.headers["Authorization"]
        yield system
    finally:
        await system.stop()


async def key_with(system: System, **limits: int) -> str:
    options = [word for name, n in limits.items() for word in (f"--{name.replace('_', '-')}", str(n))]
    return await make_key(system, next(names), *options)


async def post(
    system: System, key: str, model: str = "echo", *, gateway: int = 0, once: str = "", max_tokens: int = COST - 4
) -> httpx2.Response:
    headers = bearer(key) | ({"Idempotency-Key": once} if once else {})
    body = ask(model, PROMPT, max_tokens=max_tokens)
    return await system.http.post(f"{system.gateways[gateway].url}/chat", json=body, headers=headers)


async def post_many(system: System, key: str, model: str = "echo", *, tries: int = TRIES) -> list[httpx2.Response]:
    """Send all requests at once, over both gateways."""
    return await asyncio.gather(*(post(system, key, model, gateway=n % 2) for n in range(tries)))


def counted(answers: list[httpx2.Response]) -> dict[str, int]:
    return Counter("accepted" if a.status_code == 202 else code_of(a)[1] for a in answers)


async def all_ended(system: System, key: str) -> None:
    async def look() -> bool:
        page = (await system.http.get(f"{system.url}/chat?limit=100", headers=bearer(key))).json()
        ended = all(stream["ended_at"] for stream in page["streams"])
        async with system.broker.client() as client:
            return ended and not await client.keys("hr:{desk}:streams:*")  # settled too

    await system.eventually(look)


async def remaining(system: System, key: str) -> int:
    """Return the tokens left in this minute, before the request that asks for it."""
    answer = await post(system, key)
    assert answer.status_code == 202, answer.text
    return int(answer.headers["x-ratelimit-remaining-tokens"]) + COST


async def test_requests_are_counted_exactly(limited: System) -> None:
    key = await key_with(limited, requests_per_minute=REQUESTS)
    answers = await post_many(limited, key)
    assert counted(answers) == {"accepted": REQUESTS, "requests_per_minute_exceeded": TRIES - REQUESTS}
    left = [int(a.headers["x-ratelimit-remaining-requests"]) for a in answers if a.status_code == 202]
    assert sorted(left) == list(range(REQUESTS))  # each got a different number
    refused = next(a for a in answers if a.status_code == 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["error"]["retryable"] is True
    assert f"{REQUESTS} requests" in refused.json()["error"]["message"]
    assert refused.headers["ratelimit-limit"] == refused.headers["x-ratelimit-limit-requests"] == str(REQUESTS)
    assert refused.headers["ratelimit-remaining"] == "0"
    assert refused.headers["ratelimit-policy"] == f"{REQUESTS};w=60"
    assert 1 <= int(refused.headers["ratelimit-reset"]) <= 60


async def test_concurrent_streams_are_counted_exactly_until_they_end(limited: System) -> None:
    gate = asyncio.Event()
    limited.fake.play("held", Answer(gate=gate))
    key = await key_with(limited, concurrent_streams=STREAMS)
    answers = await post_many(limited, key, "held")
    assert counted(answers) == {"accepted": STREAMS, "concurrent_streams_exceeded": TRIES - STREAMS}
    assert next(a for a in answers if a.status_code == 429).headers["retry-after"] == "1"
    ids = [a.json()["stream_id"] for a in answers if a.status_code == 202]
    base = limited.gateways[1].url
    for stream_id in ids[:2]:
        await limited.http.post(f"{base}/chat/{stream_id}/cancel", headers=bearer(key))
    await limited.http.delete(f"{base}/chat/{ids[2]}", headers=bearer(key))

    async def has_room(n: int) -> bool:
        async with limited.broker.client() as client:
            sets = [name async for name in client.scan_iter("hr:{desk}:streams:*")]
            return STREAMS - n in [await client.zcard(name) for name in sets]

    await limited.eventually(lambda: has_room(3))
    assert counted(await post_many(limited, key, "held", tries=20))["accepted"] == 3
    gate.set()
    await all_ended(limited, key)
    limited.fake.play("held", Answer())
    assert counted(await post_many(limited, key, "held", tries=STREAMS))["accepted"] == STREAMS


async def test_tokens_are_reserved_exactly_and_settled_by_the_real_usage(limited: System) -> None:
    gate = asyncio.Event()
    limited.fake.play("thrifty", Answer(gate=gate, usage=(3, 2)))
    key = await key_with(limited, **LIMITS)
    answers = await post_many(limited, key, "thrifty")
    assert counted(answers) == {"accepted": 12, "tokens_per_minute_exceeded": TRIES - 12}
    assert "requires up to 100 tokens" in next(a for a in answers if a.status_code == 429).json()["error"]["message"]
    gate.set()
    await all_ended(limited, key)
    assert await remaining(limited, key) == 12 * COST - 12 * 5


@pytest.mark.timeout(120 + IN_A_ROW // 10)
async def test_requests_in_a_row_never_find_the_slot_taken(limited: System) -> None:
    """A client that has seen `done` sends its next request, before the worker may have settled the last one."""
    headers = bearer(await key_with(limited, concurrent_streams=1))
    for n in range(IN_A_ROW):
        async with await limited.stream("echo", "x", gateway=n % 2, headers=headers) as connection:
            frames = await connection.rest()
        assert frames[-1].event == "done", f"request {n + 1}: {frames}"


async def test_cached_tokens_are_charged_like_others(limited: System) -> None:
    limited.fake.play("cached", Answer(usage=Counts(30, 9, cached=20, cache_write=4, reasoning=5)))
    key = await key_with(limited, **LIMITS)
    await post(limited, key, "cached")
    await all_ended(limited, key)
    assert await remaining(limited, key) == 12 * COST - 39


async def test_no_finish_reason_of_a_provider_makes_an_answer_free(limited: System) -> None:
    limited.fake.play("free", Answer(usage=(3, 2), finish_reason=COUNTED))
    key = await key_with(limited, **LIMITS)
    await post(limited, key, "free")
    await all_ended(limited, key)
    assert await remaining(limited, key) == 12 * COST - 5


async def test_tokens_beyond_the_reservation_are_counted(limited: System) -> None:
    limited.fake.play("greedy", Answer(usage=(3, 12 * COST)))
    key = await key_with(limited, **LIMITS)
    await post(limited, key, "greedy")
    await all_ended(limited, key)
    answer = await post(limited, key)
    assert code_of(answer) == (429, "tokens_per_minute_exceeded")
    assert answer.headers["x-ratelimit-remaining-tokens"] == "0"


async def test_tokens_of_a_failed_request_are_given_back(limited: System) -> None:
    limited.fake.play("refuses", Answer(status=400))
    key = await key_with(limited, **LIMITS)
    for _ in range(3):
        await post(limited, key, "refuses")
    await all_ended(limited, key)
    assert await remaining(limited, key) == 12 * COST


async def test_a_daily_budget_refuses_further_requests(limited: System) -> None:
    key = await key_with(limited, tokens_per_day=3 * COST)
    limited.fake.play("whole", Answer(usage=(4, COST - 4)))
    answers = [await post(limited, key, "whole") for _ in range(4)]
    assert [a.status_code for a in answers] == [202, 202, 202, 429]
    assert code_of(answers[-1]) == (429, "tokens_per_day_exceeded")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


async def test_a_request_above_the_whole_limit_is_invalid_at_once(limited: System) -> None:
    key = await key_with(limited, **LIMITS)
    answer = await post(limited, key, max_tokens=12 * COST)
    assert code_of(answer) == (422, "invalid_request")
    assert answer.json()["error"]["message"].startswith("max_tokens: requires up to 1204 tokens")
    long = ask("echo", "x" * 5000)
    answer = await limited.http.post(f"{limited.url}/chat", json=long, headers=bearer(key))
    assert code_of(answer) == (422, "invalid_request")
    assert answer.json()["error"]["message"].startswith("messages: ")
    # An assumed number of tokens never makes a request impossible.
    tight = await key_with(limited, tokens_per_minute=500)
    answer = await limited.http.post(f"{limited.url}/chat", json=ask("echo", PROMPT), headers=bearer(tight))
    assert answer.status_code == 202


async def test_a_repeated_request_is_charged_once(limited: System) -> None:
    key = await key_with(limited, requests_per_minute=1, concurrent_streams=1, tokens_per_minute=COST)
    tries = [post(limited, key, gateway=n % 2, once="the same") for n in range(50)]
    answers = await asyncio.gather(*tries)
    assert {a.status_code for a in answers} == {202}, answers[0].text
    assert len({a.json()["stream_id"] for a in answers}) == 1


async def test_keys_of_one_name_share_limits_and_others_do_not(limited: System) -> None:
    name = next(names)
    first = await make_key(limited, name, "--requests-per-minute", "2")
    second = await make_key(limited, name, "--requests-per-minute", "2")
    other = await key_with(limited, requests_per_minute=2)
    assert [(await post(limited, key)).status_code for key in (first, second, first, other, other)] == [
        *(202, 202, 429),
        *(202, 202),
    ]
    listed = await asyncio.to_thread(run_headrace, limited, "keys", "list")
    assert "requests_per_minute=2" in listed.stdout


async def test_reading_is_never_limited(limited: System) -> None:
    key = await key_with(limited, requests_per_minute=1, concurrent_streams=1)
    stream_id = (await post(limited, key)).json()["stream_id"]
    for path in (f"/chat/{stream_id}", f"/chat/stream/{stream_id}", "/chat", "/v1/models") * 3:
        assert (await limited.http.get(limited.url + path, headers=bearer(key))).status_code == 200


async def test_a_crash_frees_the_slots_of_its_streams_exactly_when_they_end(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The slots of a killed worker are free when its streams have ended, no sooner and no later."""
    options: dict[str, Any] = {"providers": ("openai",), "concurrent_streams": 3, "lease_s": 4}
    system = System(tmp_path_factory.mktemp("crash"), gateways=2, workers=2, **options)
    try:
        await system.start()
        gate = asyncio.Event()
        system.fake.play("crash", Answer(gate=gate, gate_after=2))
        ids = [await system.post("crash") for _ in range(3)]
        await system.fake.wait_calls(3)
        for worker in system.workers:
            worker.stop()
        for gateway in system.gateways:
            gateway.stop()
        for process in (*system.gateways, *system.workers):
            process.start()
        await system.ready()
        answer = await system.http.post(f"{system.url}/chat", json=ask("crash"))
        assert code_of(answer) == (429, "concurrent_streams_exceeded")
        gate.set()
        for stream_id in ids:
            assert (await system.ended(stream_id, timeout_s=40))["status"] == "completed"
        answers = [await system.http.post(f"{system.url}/chat", json=ask("crash")) for _ in range(3)]
        assert {a.status_code for a in answers} == {202}, answers[0].text
        assert await system.keys_without_expiry() == []
    finally:
        await system.stop()


@pytest.mark.parametrize("count", [-5_000_000, -1.5e300, 10**40, 1.5e300, True, "-7", "many"])
async def test_an_impossible_count_of_a_provider_is_no_credit(limited: System, count: Any) -> None:
    key = await key_with(limited, **LIMITS)
    limited.fake.play("miscounts", Answer(deltas=["ok"], usage=Counts(count, count, cached=count, reasoning=count)))
    assert (await post(limited, key, "miscounts")).status_code == 202
    await all_ended(limited, key)
    left = LIMITS["tokens_per_minute"] - await remaining(limited, key)
    assert 0 < left <= COST
