"""Webhooks: the ending of a stream reaches the application, signed, at least once."""

import asyncio
import os
import re
import signal
import sqlite3
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from socket import gethostname

import openai
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from tests.credentials import JWT_SETTINGS, boot_credentials, make_key, start_stream
from tests.fakes.answer import Answer
from tests.ports import free_port
from tests.system import REPOSITORY, System, ask
from tests.test_redis_urls import make_certificate
from tests.webhook_receiver import SECRET, WebhookReceiver

WORDS = [f"w{i} " for i in range(20)]
TEXT = "".join(WORDS)
OTHER_SECRET = "whsec_" + "QUJD" * 10


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[WebhookReceiver]:
    receiver = await WebhookReceiver().start()
    yield receiver
    await receiver.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return a certificate that the workers trust, and its key."""
    return make_certificate(tmp_path_factory.mktemp("trusted"))


@pytest.fixture(scope="module")
async def system(
    tmp_path_factory: pytest.TempPathFactory, receiver: WebhookReceiver, certificate: tuple[str, str]
) -> AsyncIterator[System]:
    """Yield a system that tells the receiver about all streams, and about those with another URL if it may."""
    system = System(
        tmp_path_factory.mktemp("system"),
        providers=("openai",),
        webhook_url=receiver.url,
        webhook_hosts=f"127.0.0.1:{receiver.port}, example.com, localhost, 127.0.0.0/8, ::1",
        webhook_secret=SECRET,
        retention_min_s=0,
        lease_s=2,
        environment={"SSL_CERT_FILE": certificate[0]},
    )
    await system.start()
    yield system
    assert await system.keys_without_expiry() == []
    await system.stop()


@pytest.fixture(autouse=True)
def accepts_all(receiver: WebhookReceiver) -> None:
    receiver.answer = None


async def test_the_ending_of_a_stream_is_delivered(system: System, receiver: WebhookReceiver) -> None:
    system.fake.play("told", Answer(deltas=WORDS))
    stream_id = await system.post("told", metadata={"order": "17"})
    (delivery,) = await receiver.next_of(stream_id)
    status = await system.status(stream_id)
    assert delivery.event["type"] == "stream.completed"
    assert delivery.event["timestamp"] == status["ended_at"]
    data = delivery.event["data"]
    for name in ("stream_id", "status", "finish_reason", "usage", "model", "provider", "metadata", "created_at"):
        assert data[name] == status[name], name
    assert TEXT not in delivery.body
    assert "hi" not in data.values()
    assert delivery.headers["user-agent"].startswith("headrace/")
    await system.eventually(lambda: is_done(system, stream_id))
    assert len(receiver.of(stream_id)) == 1


async def is_done(system: System, stream_id: str) -> bool:
    return await system.field(stream_id, "undelivered") is None


async def test_failures_and_cancels_are_told_too(system: System, receiver: WebhookReceiver) -> None:
    gate = asyncio.Event()
    system.fake.play("cancelled", Answer(deltas=WORDS, gate=gate, gate_after=3))
    async with await system.stream("cancelled") as connection:
        await connection.next("token")
        await system.http.post(f"{system.url}/chat/{connection.stream_id}/cancel")
        (told,) = await receiver.next_of(str(connection.stream_id))
    assert told.event["type"] == "stream.cancelled"
    gate.set()
    failed = await system.post("none", provider="openai", fallbacks=[], prompt="x", max_tokens=1)
    (told,) = await receiver.next_of(failed)
    assert told.event["type"] == "stream.failed"
    assert told.event["data"]["error"]["code"]


async def test_a_request_chooses_a_listed_receiver(system: System, receiver: WebhookReceiver) -> None:
    system.fake.play("own", Answer(deltas=WORDS))
    stream_id = await system.post("own", webhook_url=f"http://127.0.0.1:{receiver.port}/other?a=1")
    (delivery,) = await receiver.next_of(stream_id)
    assert delivery.path == "/other"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://elsewhere.example/hook", "not allowed here"),
        ("http://192.168.0.1:1/hook", "not allowed here"),
        ("https://10.0.0.1/", "not allowed here"),
        ("https://169.254.169.254/latest", "not allowed here"),
        ("https://[::ffff:127.0.0.1]/", "not allowed here"),
        ("ftp://example.com/hook", "not an http or https URL"),
        ("https://user:secret@example.com/", "credentials"),
        ("https://example.com/#a", "fragment"),
        ("example.com/hook", "not an http or https URL"),
        ("https://", "not an http or https URL"),
        ("https://example.com:99999/", "not a URL"),
        ("https://example.com/a b", "not a URL"),
    ],
)
async def test_another_receiver_is_refused(system: System, url: str, problem: str) -> None:
    answer = await system.http.post(f"{system.url}/chat", json=ask("x", webhook_url=url))
    assert answer.status_code == 422
    message = answer.json()["error"]["message"]
    assert message.startswith("webhook_url: ")
    assert problem in message
    assert "secret" not in message


async def test_openais_sdk_unwraps_the_events_of_responses(system: System, receiver: WebhookReceiver) -> None:
    system.fake.play("response", Answer(deltas=WORDS))
    system.fake.play("cut", Answer(deltas=WORDS, finish_reason="length"))
    client = openai.AsyncOpenAI(base_url=f"{system.url}/v1", api_key="x", webhook_secret=SECRET)
    for model, event in (("response", "response.completed"), ("cut", "response.incomplete")):
        response = await client.responses.create(model=f"openai/{model}", input="hi", background=True)
        (delivery,) = await receiver.next_of(response.id)
        unwrapped = client.webhooks.unwrap(delivery.body, delivery.headers)
        assert unwrapped.model_dump(include={"id", "type", "data"}) == {
            "id": delivery.id,
            "type": event,
            "data": {"id": response.id},
        }
    await client.close()


async def test_a_chat_completion_names_a_receiver(system: System, receiver: WebhookReceiver) -> None:
    system.fake.play("completion", Answer(deltas=WORDS))
    client = openai.AsyncOpenAI(base_url=f"{system.url}/v1", api_key="x")
    completion = await client.chat.completions.create(
        model="openai/completion",
        messages=[{"role": "user", "content": "hi"}],
        extra_body={"webhook_url": f"http://127.0.0.1:{receiver.port}/sdk"},
    )
    stream_id = completion.id.rpartition("-")[2]
    (delivery,) = await receiver.next_of(stream_id)
    assert delivery.path == "/sdk"
    (call,) = [call for call in system.fake.calls if call.model == "completion"]
    assert "webhook_url" not in call.request
    await client.close()


async def test_a_message_of_anthropics_api_names_a_receiver(system: System, receiver: WebhookReceiver) -> None:
    system.fake.play("message", Answer(deltas=WORDS))
    body = {
        "model": "openai/message",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "hi"}],
        "webhook_url": f"http://127.0.0.1:{receiver.port}/message",
    }
    answer = await system.http.post(f"{system.url}/v1/messages", json=body)
    assert answer.status_code == 200, answer.text
    (delivery,) = await receiver.next_of(answer.headers["x-stream-id"])
    assert delivery.path == "/message"


async def test_a_receiver_that_fails_gets_the_same_webhook_again(system: System, receiver: WebhookReceiver) -> None:
    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=500)

    async def redirect(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": "/elsewhere"})

    async def has_error(error: str) -> bool:
        return error in str(await system.field(stream_id, "delivery_error"))

    receiver.answer = fail
    system.fake.play("again", Answer(deltas=WORDS))
    stream_id = await system.post("again")
    await system.eventually(partial(has_error, "HTTP 500"))
    assert re.search(rf"{stream_id}  completed .* \d failed .* HTTP 500", await run(system, "webhooks", "list"))
    receiver.answer = redirect
    await run(system, "webhooks", "retry", stream_id)  # now, instead of in some seconds
    await system.eventually(partial(has_error, "redirects are not followed"))
    receiver.answer = None
    await run(system, "webhooks", "retry", stream_id)
    await system.eventually(lambda: is_done(system, stream_id))
    tries = await receiver.next_of(stream_id, 3)
    assert len({(each.id, each.body, each.path) for each in tries}) == 1


async def test_a_receiver_that_is_gone_is_given_up(system: System, receiver: WebhookReceiver) -> None:
    async def be_gone(_: web.Request) -> web.Response:
        return web.Response(status=410)

    receiver.answer = be_gone
    system.fake.play("gone", Answer(deltas=WORDS))
    stream_id = await system.post("gone")

    async def is_given_up() -> bool:
        listed = await run(system, "webhooks", "list")
        return re.search(rf"{stream_id}  completed .* given up  HTTP 410", listed) is not None

    await receiver.next_of(stream_id)
    await system.eventually(is_given_up)
    receiver.answer = None
    await run(system, "webhooks", "retry", "--all")
    await receiver.next_of(stream_id, 2)
    await system.eventually(lambda: is_done(system, stream_id))
    assert stream_id not in await run(system, "webhooks", "list")


async def test_workers_that_die_lose_no_webhook(system: System, receiver: WebhookReceiver) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        raise AssertionError

    receiver.answer = hang
    system.fake.play("killed", Answer(deltas=WORDS))
    stream_id = await system.post("killed")
    await receiver.next_of(stream_id)  # its worker has sent it and waits
    for worker in system.workers:
        worker.signal(signal.SIGKILL)
        await worker.wait()
    receiver.answer = None
    async with system.broker.client() as client:  # as if the time of that try were over
        await client.zadd("hr:{desk}:deliveries", {stream_id: 1})
    for worker in system.workers:
        worker.start()
    assert len({each.body for each in await receiver.next_of(stream_id, 2)}) == 1
    await system.eventually(lambda: is_done(system, stream_id))


async def test_a_desk_that_loses_its_data_loses_no_webhook(system: System, receiver: WebhookReceiver) -> None:
    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=503, headers={"retry-after": "1"})

    receiver.answer = fail
    system.fake.play("lost", Answer(deltas=WORDS))
    stream_id = await system.post("lost")
    await receiver.next_of(stream_id)
    await system.eventually(lambda: system.field(stream_id, "delivery_failures"))
    receiver.answer = None
    async with system.broker.client() as client:
        await client.delete("hr:{desk}:deliveries")
    await receiver.next_of(stream_id, 2)
    await system.eventually(lambda: is_done(system, stream_id))


async def test_an_answer_is_kept_until_it_is_delivered(
    start_system: Callable[..., Awaitable[System]], tmp_path: Path
) -> None:
    receiver = WebhookReceiver(port=free_port())  # nobody listens there yet
    system = await start_system(
        gateways=1,
        workers=1,
        providers=("openai",),
        retention_s=1,
        lease_s=1,
        webhook_url=receiver.url,
        webhook_secret=f"{OTHER_SECRET},{SECRET}",  # while the receivers change theirs
        webhook_payload="full",
    )
    system.fake.play("kept", Answer(deltas=WORDS))
    stream_id = await system.post("kept")
    await system.eventually(lambda: system.field(stream_id, "delivery_error"))
    assert "no connection" in str(await system.field(stream_id, "delivery_error"))

    async def is_past_retention() -> bool:
        async with system.broker.client() as client:
            seconds, _ = await client.time()
        return int(seconds) * 1000 > int(str(await system.field(stream_id, "ended"))) + 1000

    await system.eventually(is_past_retention)
    await receiver.start()
    await run(system, "webhooks", "retry", stream_id)
    delivery, *_ = await receiver.next_of(stream_id)  # perhaps twice: its next try may have come before
    Webhook(OTHER_SECRET).verify(delivery.body, delivery.headers)
    assert delivery.event["data"]["text"] == TEXT

    async def is_gone() -> bool:
        return (await system.http.get(f"{system.url}/chat/{stream_id}")).status_code == 410

    await system.eventually(is_gone)
    await receiver.stop()


async def test_a_key_has_a_receiver_of_its_own(start_system: Callable[..., Awaitable[System]]) -> None:
    receiver = await WebhookReceiver().start()
    system = await start_system(
        gateways=1, workers=1, auth="keys,jwt", webhook_secret=SECRET, credentials=boot_credentials(), **JWT_SETTINGS
    )
    key = await make_key(system, "app", "--webhook-url", receiver.url)
    system.fake.play("keyed", Answer(deltas=WORDS))
    stream_id = (await start_stream(system, key, "keyed"))["stream_id"]
    (delivery,) = await receiver.next_of(stream_id)
    assert delivery.event["type"] == "stream.completed"
    assert f"webhook=127.0.0.1:{receiver.port}" in await run(system, "keys", "list")
    await receiver.stop()


async def run(system: System, *arguments: str) -> str:
    """Run one command of the program, and return what it prints to stdout."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headrace",
        *arguments,
        env=system.gateways[0].environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_the_receiver_of_the_readme_stores_answers(
    start_system: Callable[..., Awaitable[System]], tmp_path: Path
) -> None:
    section = (REPOSITORY / "README.md").read_text().partition("## Into your database")[2]
    (tmp_path / "store.py").write_text(section.partition("```python\n")[2].partition("```")[0])
    port = free_port()
    arguments = ("-m", "uvicorn", "store:app", "--port", str(port))
    environment = {**os.environ, "HEADRACE_WEBHOOK_SECRET": SECRET}
    store = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=tmp_path, env=environment)
    try:
        system = await start_system(
            gateways=1,
            workers=1,
            webhook_url=f"http://127.0.0.1:{port}/",
            webhook_secret=SECRET,
            webhook_payload="full",
        )
        await system.eventually(partial(listens, port), timeout_s=100)
        system.fake.play("stored", Answer(deltas=WORDS))
        stream_id = await system.post("stored", metadata={"order": "17"})

        async def rows() -> list[tuple[str, str, str]]:
            with closing(sqlite3.connect(tmp_path / "answers.db")) as database:
                try:
                    return database.execute("SELECT id, about, answer FROM answers").fetchall()
                except sqlite3.OperationalError:  # it has just begun
                    return []

        assert await system.eventually(rows, timeout_s=40) == [(stream_id, "17", TEXT)]
    finally:
        store.terminate()
        await store.wait()


async def listens(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        return True
    return False


async def test_a_name_that_leads_to_an_address_of_the_own_network_is_refused(
    start_system: Callable[..., Awaitable[System]],
) -> None:
    """A listed name may lead anywhere: this one to the machine of the worker."""
    system = await start_system(gateways=1, workers=1, webhook_hosts=gethostname(), webhook_secret=SECRET)
    system.fake.play("rebound", Answer(deltas=WORDS))
    stream_id = await system.post("rebound", webhook_url=f"https://{gethostname()}:{free_port()}/")
    await system.eventually(lambda: system.field(stream_id, "delivery_error"))
    assert "is not a public address" in str(await system.field(stream_id, "delivery_error"))


async def test_a_receiver_with_a_trusted_certificate_is_told(system: System, certificate: tuple[str, str]) -> None:
    receiver = await WebhookReceiver(tls=_tls(certificate)).start()
    try:
        system.fake.play("by_tls", Answer(deltas=WORDS))
        stream_id = await system.post("by_tls", webhook_url=receiver.url)
        await receiver.next_of(stream_id)
    finally:
        await receiver.stop()


async def test_a_receiver_with_another_certificate_is_told_nothing(system: System, tmp_path: Path) -> None:
    other = await asyncio.to_thread(make_certificate, tmp_path)
    receiver = await WebhookReceiver(tls=_tls(other)).start()
    try:
        system.fake.play("by_other_tls", Answer(deltas=WORDS))
        stream_id = await system.post("by_other_tls", webhook_url=receiver.url)
        await system.eventually(lambda: system.field(stream_id, "delivery_error"))
        assert await system.field(stream_id, "delivery_error") == "TLS: CERTIFICATE_VERIFY_FAILED"
        assert receiver.of(stream_id) == []
    finally:
        await receiver.stop()


def _tls(certificate: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


async def test_the_path_of_a_receiver_is_in_no_log(system: System, receiver: WebhookReceiver) -> None:
    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=503)

    receiver.answer = fail
    system.fake.play("secretly", Answer(deltas=WORDS))
    stream_id = await system.post("secretly", webhook_url=f"http://127.0.0.1:{receiver.port}/s3cr3t?token=s3cr3t")
    await system.eventually(lambda: system.field(stream_id, "delivery_error"))
    assert "s3cr3t" not in await run(system, "webhooks", "list")

    async def logs_of_failure() -> list[str] | None:
        logs = [process.log.read_text() for process in (*system.gateways, *system.workers)]
        return logs if any(stream_id in log and "webhook failed" in log for log in logs) else None

    assert not any("s3cr3t" in log for log in await system.eventually(logs_of_failure))
