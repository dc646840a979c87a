"""The load test of a running system (``python -m bench --url``): says its cost first, and finds damaged answers."""

import asyncio
import json
import sys
from typing import Any

import pytest

from tests.cli import ROOT, Ended, done, environment, event, finish, refusal, scripted, start, stream, token
from tests.fakes import Answer
from tests.system import System

#: Too long for two of them in one event, so that each answer has more events than the first cut waits for.
WORDS = [f"word{n} " + "x" * 5000 for n in range(60)]


async def load_test(url: str, *options: str) -> Ended:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench", "--url", url, *options),
        cwd=ROOT,
        env=environment(),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )
    return await finish(process, timeout_s=120)


async def figures(url: str, *options: str, code: int) -> dict[str, Any]:
    ended = await load_test(url, "--json", "--yes", *options)
    assert ended.code == code, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


@pytest.mark.parametrize(
    "shape",
    [
        ("burst", "--ramp", "0.1"),
        ("steady", "--ramp", "0.1", "--requests", "6", "--seconds", "60"),
        ("arrivals", "--ramp", "0.1", "--rate", "6", "--seconds", "1.05"),
    ],
)
async def test_a_sound_system_loses_nothing_although_connections_are_cut(
    system: System, shape: tuple[str, ...]
) -> None:
    system.fake.play("loaded", Answer(deltas=WORDS, delay_s=0.005))
    options = ("--shape", *shape, "--model", "openai/loaded", "--streams", "6")
    found = await figures(system.url, *options, "--cut", "1", code=0)
    assert found["requests"] == found["complete"] == 6
    assert found["errors"] == {}
    assert found["tokens"] == 6 * len(WORDS)
    assert found["resumed_connections"] >= 6
    assert [found[name] for name in ("resets", "lost_events", "events_twice", "altered_answers")] == [0] * 4
    assert 0 < found["first_token"]["p50_ms"] <= found["whole_answer"]["p50_ms"]


def stored(text: str) -> bytes:
    body = json.dumps({"text": text}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ([stream(start(), token("3-2", "a"), token("3-4", "b"), done("3-5")), stored("ab")], {"lost_events": 1}),
        ([stream(start(), token("3-2", "a"), token("3-2", "a"), done("3-3")), stored("aa")], {"events_twice": 1}),
        ([stream(start(), token("3-2", "a"), done("3-3")), stored("abc")], {"altered_answers": 1}),
        ([refusal(429, "rate", "no", retryable=True)], {"errors": {"HTTP 429 rate": 1}, "complete": 0}),
        (
            [stream(start(), event("error", "3-2", code="provider_auth", message="m"), done("3-3")), stored("")],
            {"errors": {"in the stream: provider_auth": 1}, "complete": 0},
        ),
        ([b""], {"errors": {"connection closed early": 1}, "complete": 0}),
    ],
)
async def test_damage_and_failures_are_counted(answers: list[bytes], wrong: dict[str, Any]) -> None:
    async with scripted(*answers) as gateway:
        found = await figures(gateway.url, "--shape", "burst", "--streams", "1", code=1)
    assert {name: found[name] for name in wrong} == wrong


async def test_nothing_is_sent_before_somebody_has_agreed() -> None:
    async with scripted(stream(start(), done("3-2"))) as gateway:
        ended = await load_test(gateway.url, "--model", "openai/gpt-5", "--streams", "3", "--answer-tokens", "100")
    assert (ended.code, ended.out) == (2, "")
    assert "at most 30 requests to openai/gpt-5" in ended.err
    assert "at most 3000 output tokens" in ended.err
    assert "COSTS MONEY" in ended.err
    assert "--yes" in ended.err
    assert gateway.requests == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--url", "localhost:8000"), "--url"),
        (("--model", "demo"), "--model"),
        (("--key", "hr-gehé"), "--key"),
        (("--ramp", "60"), "--ramp"),
    ],
)
async def test_wrong_options_are_named(options: tuple[str, ...], problem: str) -> None:
    ended = await load_test("http://127.0.0.1:9", *options, "--yes")
    assert ended.code == 2
    assert ended.err.startswith(problem)
    assert "geh" not in ended.err
