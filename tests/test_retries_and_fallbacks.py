"""Timeouts, retries, fallbacks and the circuit breaker handle a provider that is slow or fails."""

import asyncio
import json
import signal
from typing import Any

import pytest

from shared.broker.keys import breaker_key
from tests.cli import until
from tests.conftest import IMPATIENT, StartSystem
from tests.fakes import Answer, FakeProvider
from tests.provider_client import network, short_forms
from tests.raw_server import full_listener
from tests.sse_client import Frame, error_of, text_of
from tests.system import PROVIDERS, System

DOWN = Answer(status=503)
LIMITED = Answer(status=429, retry_after="0")
SPOKEN = Answer(deltas=["spoken"])


def answered_by(frames: list[Frame]) -> list[str]:
    return [f"{frame.data['provider']}/{frame.data['model']}" for frame in frames if frame.event == "start"]


async def answer(system: System, model: str, **body: Any) -> list[Frame]:
    async with await system.stream(model, **body) as connection:
        return await connection.rest()


def calls_of(fake: FakeProvider, model: str) -> int:
    return sum(call.model == model for call in fake.calls)


# --- timeouts


@network
@pytest.mark.parametrize(
    ("silent", "code"),
    [
        (Answer(deltas=(), first_delay_s=60), "provider_first_token_timeout"),
        (Answer(deltas=(), end="hang"), "provider_first_token_timeout"),
        (Answer(deltas=(), end="ping", comments=True), "provider_first_token_timeout"),
        (Answer(deltas=["a"], end="hang"), "provider_idle_timeout"),
        (Answer(deltas=["a"], end="ping"), "provider_idle_timeout"),
    ],
)
async def test_a_silent_provider_ends_with_the_timeout_that_expired(
    impatient: System, name: str, silent: Answer, code: str
) -> None:
    """Comments and pings that only keep the connection open do not count as an answer."""
    model = f"{name}-{code}-{silent.end}"
    impatient.fake.play(model, silent)
    frames = await answer(impatient, model, provider=name)
    assert error_of(frames) == (code, True)
    assert text_of(frames) == "".join(silent.deltas)  # type: ignore[arg-type]
    # Retried only without output. A slow provider may see a call after the worker has given it up.
    calls = 1 if silent.deltas else 2
    await until(lambda: calls_of(impatient.fake, model) >= calls, f"{calls} calls")
    assert calls_of(impatient.fake, model) == calls
    for call in impatient.fake.calls:
        if call.model == model:
            await call.wait_closed()
            assert call.closed_by_client


@short_forms
async def test_a_connection_that_is_never_accepted_times_out(start_system: StartSystem, name: str) -> None:
    """A listener with a full backlog neither accepts nor refuses."""
    with full_listener() as url:
        addresses = {"OPENAI_BASE_URL": url, "ANTHROPIC_BASE_URL": url, "OLLAMA_HOST": url}
        settings = IMPATIENT | {"first_token_timeout_s": 10, "provider_connect_timeout_s": 0.4}
        addresses = {variable: url for variable, url in addresses.items() if name.upper() in variable}
        system = await start_system(gateways=1, workers=1, providers=(name,), **settings, environment=addresses)
        assert error_of(await answer(system, "m", provider=name)) == ("provider_connect_timeout", True)


async def test_each_model_has_its_own_timeouts(start_system: StartSystem) -> None:
    patience = {
        "openai/slow": {"first_token_s": 60, "total_s": 60},
        "openai": {"first_token_s": 0.3, "total_s": 4},
        "openai/endless": {"first_token_s": 60},
    }
    system = await start_system(gateways=1, workers=1, model_timeouts=json.dumps(patience), provider_retries=0)
    system.fake.play("slow", Answer(deltas=["late"], first_delay_s=0.6))
    system.fake.play("other", Answer(deltas=["never"], first_delay_s=60))
    system.fake.play("endless", Answer(deltas=lambda _: ("x" for _ in range(10_000)), delay_s=0.05))
    slow, other, endless = await asyncio.gather(*(answer(system, model) for model in ("slow", "other", "endless")))
    assert text_of(slow) == "late"
    assert error_of(other) == ("provider_first_token_timeout", True)
    assert error_of(endless) == ("deadline_exceeded", False)
    assert text_of(endless).startswith("xxx")


async def test_a_paused_worker_does_not_count_as_a_silent_provider(start_system: StartSystem) -> None:
    """The worker is stopped for longer than the idle timeout, with tokens in its socket."""
    system = await start_system(gateways=1, workers=1, lease_s=60, between_tokens_timeout_s=3)
    gate = asyncio.Event()
    system.fake.play("goes-on", Answer(deltas=("one", " two"), gate=gate, gate_after=1))
    async with await system.stream("goes-on") as connection:
        await connection.next("token")
        system.workers[0].signal(signal.SIGSTOP)
        gate.set()
        await asyncio.sleep(4.5)
        system.workers[0].signal(signal.SIGCONT)
        rest = await connection.rest()
    assert text_of(rest) == " two"
    assert rest[-1].data["finish_reason"] == "stop"


async def test_the_first_token_timeout_does_not_extend_the_idle_timeout(start_system: StartSystem) -> None:
    system = await start_system(
        gateways=1, workers=1, provider_retries=0, first_token_timeout_s=3600, between_tokens_timeout_s=0.4
    )
    system.fake.play("stops", Answer(deltas=["a"], end="hang"))
    assert error_of(await answer(system, "stops")) == ("provider_idle_timeout", True)


# --- retries


@network
async def test_a_retry_hides_a_passing_failure(impatient: System, name: str) -> None:
    impatient.fake.play(f"{name}-passes", DOWN, SPOKEN)
    frames = await answer(impatient, f"{name}-passes", provider=name)
    assert text_of(frames) == "spoken"
    assert answered_by(frames) == [f"{name}/{name}-passes"]
    assert calls_of(impatient.fake, f"{name}-passes") == 2


@network
async def test_retry_after_of_a_provider_is_honoured(impatient: System, name: str) -> None:
    loop = asyncio.get_running_loop()
    impatient.fake.play(f"{name}-limited", Answer(status=429, retry_after="1"), SPOKEN)
    begun = loop.time()
    assert text_of(await answer(impatient, f"{name}-limited", provider=name)) == "spoken"
    assert loop.time() - begun >= 1
    impatient.fake.play(f"{name}-far", Answer(status=429, retry_after="3600"), SPOKEN)
    assert error_of(await answer(impatient, f"{name}-far", provider=name)) == ("provider_rate_limited", True)
    assert calls_of(impatient.fake, f"{name}-far") == 1


@network
@pytest.mark.parametrize(
    ("failing", "code"),
    [
        (Answer(status=400), "provider_rejected"),
        (Answer(status=401), "provider_auth"),
        (Answer(deltas=["half"], end="truncate"), "upstream_truncated"),
        (Answer(deltas=["half"], end="error_in_band"), "provider_unavailable"),
    ],
)
async def test_a_permanent_failure_or_one_after_output_is_not_retried(
    impatient: System, name: str, failing: Answer, code: str
) -> None:
    model = f"{name}-{code}-once"
    impatient.fake.play(model, failing)
    assert error_of(await answer(impatient, model, provider=name))[0] == code
    assert calls_of(impatient.fake, model) == 1


async def test_a_cancel_interrupts_the_wait_for_a_retry(impatient: System) -> None:
    impatient.fake.play("limited-long", Answer(status=429, retry_after="19"), SPOKEN)
    stream_id = await impatient.post("limited-long")
    await impatient.eventually(lambda: called(impatient, "limited-long"))
    await impatient.http.post(f"{impatient.url}/chat/{stream_id}/cancel")
    status = await impatient.ended(stream_id, timeout_s=15)
    assert (status["finish_reason"], status["text"]) == ("cancelled", "")
    assert calls_of(impatient.fake, "limited-long") == 1


async def called(system: System, model: str) -> bool:
    return calls_of(system.fake, model) > 0


# --- fallbacks


async def test_start_names_the_fallback_that_answers(impatient: System) -> None:
    impatient.fake.play("down", DOWN)
    impatient.fake.play("unknown", Answer(status=404))
    impatient.fake.play("up", SPOKEN)
    async with await impatient.stream(
        "down", fallbacks=["anthropic/unknown", "ollama/up", "openai/never"]
    ) as connection:
        frames = await connection.rest()
    assert answered_by(frames) == ["ollama/up"]
    assert text_of(frames) == "spoken"
    status = await impatient.status(connection.stream_id)
    assert (status["provider"], status["model"]) == ("ollama", "up")
    assert calls_of(impatient.fake, "never") == 0


async def test_if_all_fallbacks_fail_the_last_error_is_reported(impatient: System) -> None:
    impatient.fake.play("all-down", DOWN)
    impatient.fake.play("refuses", Answer(status=400))
    frames = await answer(impatient, "all-down", fallbacks=["anthropic/refuses"])
    assert error_of(frames) == ("provider_rejected", False)
    assert "anthropic" in frames[-2].data["message"]


async def test_no_fallback_is_used_after_output(impatient: System) -> None:
    impatient.fake.play("breaks", Answer(deltas=["half"], end="truncate"))
    impatient.fake.play("instead", SPOKEN)
    frames = await answer(impatient, "breaks", fallbacks=["anthropic/instead"])
    assert error_of(frames) == ("upstream_truncated", True)
    assert text_of(frames) == "half"
    assert calls_of(impatient.fake, "instead") == 0


async def test_fallbacks_may_be_configured_by_model_and_by_provider(start_system: StartSystem) -> None:
    fallbacks = {"openai/mine": ["anthropic/by-setting"], "openai": ["ollama/for-all"]}
    system = await start_system(
        gateways=1, workers=1, provider_retries=0, fallbacks=json.dumps(fallbacks), providers=PROVIDERS
    )
    for model in ("mine", "other"):
        system.fake.play(model, DOWN)
    for model in ("by-setting", "for-all"):
        system.fake.play(model, SPOKEN)
    assert answered_by(await answer(system, "mine")) == ["anthropic/by-setting"]
    assert answered_by(await answer(system, "other")) == ["ollama/for-all"]
    assert error_of(await answer(system, "other", fallbacks=[]))[0] == "provider_unavailable"


# --- circuit breaker


async def test_the_circuit_breaker_opens_for_all_workers(start_system: StartSystem) -> None:
    system = await start_system(
        gateways=1, workers=2, provider_retries=0, breaker_failures=3, breaker_open_s=60, providers=PROVIDERS
    )
    system.fake.play("m", DOWN)
    for _ in range(3):
        assert error_of(await answer(system, "m"))[0] == "provider_unavailable"
    await system.eventually(lambda: is_refused(system))
    calls = calls_of(system.fake, "m")
    # The breaker is open for both workers: no call is made, and no request waits.
    for _ in range(6):
        assert error_of(await answer(system, "m"))[0] == "provider_circuit_open"
    assert calls_of(system.fake, "m") == calls
    # Other models and providers are not affected, and serve as fallbacks.
    assert text_of(await answer(system, "echo", prompt="hello")) == "hello"
    frames = await answer(system, "m", fallbacks=["anthropic/echo"])
    assert answered_by(frames) == ["anthropic/echo"]
    # After a while one request is let through; since it succeeds, the breaker closes.
    system.fake.play("m", SPOKEN)
    async with system.broker.client() as client:
        await client.delete(breaker_key("openai/m"))  # as if that while had passed
    await system.eventually(lambda: is_answered(system))


async def test_one_request_alone_does_not_open_the_circuit_breaker(start_system: StartSystem) -> None:
    """Its retries count as one failure, and an error about the request counts as a success."""
    system = await start_system(gateways=1, workers=1, provider_retries=2, breaker_failures=3, breaker_open_s=60)
    for passing in (Answer(status=400), SPOKEN):
        system.fake.calls.clear()
        system.fake.play("down", DOWN)
        for _ in range(2):
            assert error_of(await answer(system, "down"))[0] == "provider_unavailable"
        assert calls_of(system.fake, "down") == 6
        system.fake.play("down", passing)
        await answer(system, "down")
        assert calls_of(system.fake, "down") == 7


async def is_refused(system: System) -> bool:
    """Return whether several requests in a row are refused, by any worker."""
    codes = {error_of(await answer(system, "m"))[0] for _ in range(4)}
    return codes == {"provider_circuit_open"}


async def is_answered(system: System) -> bool:
    return {text_of(await answer(system, "m")) for _ in range(4)} == {"spoken"}


async def test_rate_limits_do_not_open_the_circuit_breaker(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, provider_retries=0, breaker_failures=2)
    system.fake.play("limited", LIMITED)
    system.fake.play("rejected", Answer(status=400))
    for model in ("limited", "rejected") * 3:
        await answer(system, model)
    assert text_of(await answer(system, "echo", prompt="hello")) == "hello"
