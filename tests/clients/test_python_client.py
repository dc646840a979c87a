"""The Python client reads every answer whole and once, wherever its connection breaks."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
import uvicorn

import headrace_client
from headrace_client import AsyncClient, AsyncStream, Client, Done, HeadraceError, Queued, Reset, Start, Token
from headrace_client._requests import LIMITS
from shared.version import VERSION
from tests.cli import done, event, refusal, scripted, start, stream, token
from tests.clients.replay import LENGTH_OF_START, TEXT, Replay, expected, replaying, streams
from tests.fakes.answer import Answer
from tests.page.cutting_proxy import CuttingProxy
from tests.system import System

QUESTION = [{"role": "user", "content": "my secret prompt"}]
ACCEPTED = b'{"stream_id": "s1", "stream_url": "/chat/stream/s1?ticket=my.ticket"}'
STARTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: %d\r\n\r\n%b" % (len(ACCEPTED), ACCEPTED)


async def read(answer: AsyncStream) -> list[headrace_client.Event]:
    return [event async for event in answer]


def shown(seen: list[headrace_client.Event]) -> str:
    """Return the text as a consumer shows it, by the events alone."""
    text = ""
    for one in seen:
        text = "" if isinstance(one, Reset) else text + (one.token if isinstance(one, Token) else "")
    return text


# --- cuts


async def test_an_answer_that_is_cut_at_any_byte_is_read_whole_and_once() -> None:
    async with replaying() as replay, AsyncClient(replay.url) as client:

        async def attempt(stream_id: str) -> None:
            answer = client.attach(stream_id)
            seen = await read(answer)
            assert answer.text == shown(seen) == expected(stream_id), stream_id
            assert isinstance(seen[-1], Done), stream_id
            ids = [one.event_id for one in seen if one.event_id]
            assert len(ids) == len(set(ids)), stream_id

        await asyncio.gather(
            *map(attempt, streams(in_every_way=False))
        )  # many at a time: those cut at once wait for a second
        assert set(replay.reads.values()) == {1, 2}


async def test_the_synchronous_client_reads_the_same() -> None:
    def attempt(stream_id: str, client: Client) -> None:
        answer = client.attach(stream_id)
        assert shown(list(answer)) == answer.text == expected(stream_id), stream_id

    def attempt_all(replay: Replay) -> None:
        with Client(replay.url) as client, ThreadPoolExecutor(64) as threads:
            list(threads.map(lambda one: attempt(one, client), streams()[::7]))

    async with replaying() as replay:
        await asyncio.to_thread(attempt_all, replay)


async def test_a_start_whose_response_is_cut_at_any_byte_starts_one_answer() -> None:
    async with replaying() as replay, AsyncClient(replay.url) as client:

        async def attempt(model: str) -> None:
            answer = await client.start(QUESTION, model=model)
            await read(answer)
            assert answer.text == TEXT
            assert len(replay.keys[model]) == 1

        models = [f"{('fin', 'rst')[at % 2]}-{at}" for at in range(LENGTH_OF_START)]
        await asyncio.gather(*map(attempt, models))
        assert set(replay.starts.values()) == {2}
        assert len({key for keys in replay.keys.values() for key in keys}) == len(models)


async def test_a_reader_that_leaves_and_comes_back_continues() -> None:
    async with (
        scripted(
            stream(start(), token("3-2", "one "), token("3-3", "never taken "), whole=False),
            stream(token("3-3", "two"), done("3-4")),
        ) as gateway,
        AsyncClient(gateway.url) as client,
    ):
        answer = client.attach("s1")
        async for one in answer:
            if isinstance(one, Token):
                break
        assert answer.last_event_id == "3-2"
        await read(answer)
        assert answer.text == "one two"
        assert await read(answer) == []
    assert [request.headers.get("last-event-id") for request in gateway.requests] == [None, "3-2"]


async def test_an_answer_that_was_read_already_ends_with_its_status() -> None:
    status = b'{"finish_reason": "length", "usage": {"input_tokens": 1, "output_tokens": 2, "estimated": false}}'
    gone = b"HTTP/1.1 204 No Content\r\n\r\n"
    known = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(status), status)
    async with scripted(gone, known) as gateway, AsyncClient(gateway.url) as client:
        (end,) = await read(client.attach("s1", last_event_id="3-9"))
    assert isinstance(end, Done)
    assert (end.finish_reason, end.usage and end.usage["output_tokens"]) == ("length", 2)


async def test_a_draining_gateway_sets_the_delay() -> None:
    retries = list[headrace_client.Retry]()
    async with (
        scripted(stream(start(), b"retry: 1\n", whole=False), stream(token("3-2", "x"), done("3-3"))) as gateway,
        AsyncClient(gateway.url, on_retry=retries.append) as client,
    ):
        answer = client.attach("s1")
        await read(answer)
        assert answer.text == "x"
    (retry,) = retries
    assert retry.delay_s < 0.1  # without it, at least 0.75 s


# --- the real system


async def test_broken_connections_of_a_real_system_lose_nothing(system: System) -> None:
    words = [f"word{number} " for number in range(60)]
    system.fake.play("library", Answer(deltas=words, delay_s=0.02))
    async with CuttingProxy(system.gateways[0].url) as proxy, AsyncClient(proxy.url) as client:
        answer = await client.start(QUESTION, model="openai/library")
        kinds: list[type[headrace_client.Event]] = []
        async for one in answer:
            kinds.append(type(one))
            if len(kinds) in {3, 9, 30}:
                assert proxy.cut() > 0
        status = await client.wait(answer.id)
    assert answer.text == status["text"] == "".join(words)
    assert status["status"] == "completed"
    assert kinds.count(Start) == 1
    assert [kind for kind in kinds if kind is not Queued][-1] is Done


async def test_a_link_is_read_without_a_key_and_a_cancel_ends_the_stream(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("library-cancel", Answer(deltas=["one ", "two"], gate=gate, gate_after=1))
    async with AsyncClient(system.url) as client, AsyncClient(system.gateways[1].url) as other:
        answer = await client.start(QUESTION, model="openai/library-cancel")
        assert "ticket=" in answer.url
        link = other.attach(answer.url)
        async for one in link:
            if isinstance(one, Token):
                await link.cancel()
        assert link.text == "one "
        assert link.done
        assert link.done.finish_reason == "cancelled"
        assert (await other.wait(answer.id))["finish_reason"] == "cancelled"


async def test_the_synchronous_client_starts_waits_and_times_out(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("library-sync", Answer(deltas=["one ", "two"], gate=gate, gate_after=1))

    def use() -> None:
        with Client(system.url) as client:
            answer = client.start(messages=QUESTION, model="openai/library-sync", idempotency_key="library-sync")
            with pytest.raises(TimeoutError, match="timeout_s"):
                answer.wait(timeout_s=0.2)
            assert (
                client.start(messages=QUESTION, model="openai/library-sync", idempotency_key="library-sync").id
                == answer.id
            )
            loop.call_soon_threadsafe(gate.set)
            assert client.wait(answer.id, timeout_s=60)["text"] == "one two"
            client.cancel(answer.id)
            assert client.status(answer.url)["status"] == "completed"

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(use)


# --- errors


async def test_an_error_event_has_its_code_and_is_raised_on_request() -> None:
    error = event("error", "3-2", code="provider_idle_timeout", message="slow", retryable=True)
    whole = stream(start(), error, done("3-3", "error"))
    async with scripted(STARTED, whole) as gateway, AsyncClient(gateway.url) as client:
        answer = await client.start(QUESTION, model="m")
        await read(answer)
    with pytest.raises(HeadraceError, match="provider_idle_timeout: slow") as raised:
        answer.raise_for_error()
    assert raised.value.retryable


async def test_a_final_refusal_is_raised_at_once_and_a_passing_one_is_not() -> None:
    busy = refusal(429, "queue_full", "too many", retryable=True, headers="retry-after: 0\r\n")
    wrong = refusal(404, "stream_not_found", "no such stream", retryable=False)
    async with scripted(busy, STARTED, busy, wrong) as gateway, AsyncClient(gateway.url) as client:
        answer = await client.start(QUESTION, model="m")
        with pytest.raises(HeadraceError) as raised:
            await read(answer)
    assert (raised.value.code, raised.value.status, raised.value.retryable) == ("stream_not_found", 404, False)
    assert len(gateway.requests) == 4


async def test_a_retry_after_is_waited_for_or_raised_if_it_is_too_long() -> None:
    soon = refusal(429, "requests_per_minute_exceeded", "wait", retryable=True, headers="retry-after: 1\r\n")
    late = refusal(429, "tokens_per_day_exceeded", "wait", retryable=True, headers="retry-after: 9000\r\n")
    async with scripted(soon, STARTED, late) as gateway, AsyncClient(gateway.url) as client:
        began = time.monotonic()
        answer = await client.start(QUESTION, model="m")
        assert time.monotonic() - began >= 1
        with pytest.raises(HeadraceError, match="gave up") as raised:
            await read(answer)
    assert (raised.value.code, raised.value.retry_after_s) == ("tokens_per_day_exceeded", 9000)


async def test_an_unreachable_gateway_is_an_error_after_the_retries() -> None:
    async with scripted() as gateway:
        pass  # its port is closed now
    async with AsyncClient(gateway.url, key="hr-my-key", retry_timeout_s=0.05) as client:
        with pytest.raises(HeadraceError) as raised:
            await client.start(QUESTION, model="m")
    assert (raised.value.code, raised.value.retryable) == ("unreachable", True)
    assert "hr-my-key" not in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_another_server_is_an_error_at_first_and_a_fault_of_a_proxy_later() -> None:
    page = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"
    async with scripted(page) as other, AsyncClient(other.url) as client:
        with pytest.raises(HeadraceError, match="not_headrace"):
            await client.start(QUESTION, model="m")
    async with (
        scripted(
            stream(start(), token("3-2", "a"), whole=False), page, stream(token("3-3", "b"), done("3-4"))
        ) as gateway,
        AsyncClient(gateway.url) as client,
    ):
        answer = client.attach("s1")
        await read(answer)
        assert answer.text == "ab"


@pytest.mark.parametrize("key", ["hr-gehe\nim", "hr-gehé", "hr geh"])
def test_a_key_that_no_header_may_have_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="key: contains") as raised:
        Client("http://localhost:8000", key=key)
    assert "geh" not in str(raised.value)


async def test_the_key_goes_to_its_own_gateway_only() -> None:
    whole = stream(start(), done("3-2"))
    async with (
        scripted(whole) as own,
        scripted(whole) as other,
        AsyncClient(own.url + "/", key="hr-k", user="alice") as client,
    ):
        await read(client.attach("s1"))
        await read(client.attach(f"{other.url}/chat/stream/s1?ticket=a.b"))
    assert own.requests[0].headers["authorization"] == "Bearer hr-k"
    assert own.requests[0].headers["x-headrace-user"] == "alice"
    assert own.requests[0].headers["accept-encoding"] == "identity"  # a cut would lose more of compressed bytes
    assert not {"authorization", "x-headrace-user"} & other.requests[0].headers.keys()
    assert "ticket=a.b" in other.requests[0].line
    for bad in ("", "https://example.com/", "../x", "ftp://a/chat/stream/s1", "/chat/stream/a b"):
        with pytest.raises(ValueError, match="stream: "):
            client.attach(bad)
    with pytest.raises(ValueError, match="last_event_id: "):
        client.attach("s1", last_event_id="1-1\n")
    with pytest.raises(ValueError, match="url: "):
        AsyncClient("localhost:8000")
    for user in ("", "a/b", "a,b", "a b", "ä", "u" * 129):
        with pytest.raises(ValueError, match="user: "):
            Client(own.url, user=user)


def test_an_idle_connection_is_given_up_before_the_gateway_closes_it() -> None:
    """Otherwise requests fail now and then: 15 of 800 that were sent 5 s after the one before."""
    expiry = LIMITS.keepalive_expiry
    assert expiry is not None
    assert expiry <= uvicorn.Config("gateway").timeout_keep_alive - 1


def test_the_library_has_the_version_of_the_server() -> None:
    """Both wheels contain it, see docs/adr/0022-client-libraries.md."""
    assert headrace_client.__version__ == VERSION


# --- webhooks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def signed(body: bytes, *, at: float | None = None, secret: str = SECRET) -> dict[str, str]:
    timestamp = str(int(time.time() if at is None else at))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, b"msg_1." + timestamp.encode() + b"." + body, hashlib.sha256)
    signature = "v1," + base64.b64encode(digest).decode()
    return {"Webhook-Id": "msg_1", "Webhook-Timestamp": timestamp, "Webhook-Signature": signature}


def test_a_webhook_of_the_library_of_standard_webhooks_is_verified() -> None:
    """``new Webhook(SECRET).sign(…)`` of its JavaScript library made the signature."""
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,Sk0lr8e2imJAr5uv9oNAyF0Nj5hKJ20jkiA9OmJpP3k=",
    }
    body = '{"test": "Grüße"}'.encode()
    assert headrace_client.verify_webhook(body, headers, SECRET, tolerance_s=1e10) == {"test": "Grüße"}


def test_a_webhook_is_verified() -> None:
    body = '{"type": "stream.completed", "data": {"text": "Grüße"}}'.encode()
    other = "whsec_" + base64.b64encode(b"x" * 24).decode()
    headers = signed(body)
    several = headers | {"Webhook-Signature": f"v1a,zzz v1,AAAA {headers['Webhook-Signature']}"}
    assert headrace_client.verify_webhook(body, headers, SECRET)["type"] == "stream.completed"
    assert headrace_client.verify_webhook(body.decode(), several, [other, SECRET]) == json.loads(body)
    assert headrace_client.verify_webhook(body, httpx2.Headers(headers), SECRET)
    forged = [
        (body + b" ", headers, SECRET),
        (body, headers, other),
        (body, headers | {"Webhook-Id": "msg_2"}, SECRET),
        (body, headers | {"Webhook-Timestamp": "soon"}, SECRET),
        (body, headers | {"Webhook-Signature": "v1,"}, SECRET),
        (body, headers | {"Webhook-Signature": headers["Webhook-Signature"].replace("v1,", "v2,")}, SECRET),
        (body, headers | {"Webhook-Signature": "v1,é"}, SECRET),
        (body, {}, SECRET),
        (body, signed(body, at=time.time() - 301), SECRET),
        (body, signed(body, at=time.time() + 310), SECRET),
        (b"[]", signed(b"[]"), SECRET),
    ]
    for case in forged:
        with pytest.raises(headrace_client.WebhookInvalid):
            headrace_client.verify_webhook(*case)
    with pytest.raises(ValueError, match="whsec_") as raised:
        headrace_client.verify_webhook(body, headers, "no base64!")
    assert "no base64" not in str(raised.value)
