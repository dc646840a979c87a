"""Processes of the previous release and of this tree work in one system: upgrades and rollbacks need no pause."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from tests.archive_databases import SqliteFile
from tests.credentials import JWT_SETTINGS, bearer, token
from tests.fakes.answer import Answer, Counts, Turnstile
from tests.mixed_system import Client, MixedSystem
from tests.previous_release import PREVIOUS_VERSION, unpack_previous_release
from tests.response_socket import open_socket, response_id, text_of
from tests.sse_client import open_sse
from tests.system import ask
from tests.webhook_receiver import SECRET, WebhookReceiver

WORDS = [f"w{i} " for i in range(30)]
ALICE = bearer(token("alice"))
NEW, OLD = 0, 1
PRICES = """
[prices."openai/priced"]
currency = "USD"
as_of = "2026-11-01"
input = 3
output = 15
"""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_previous_release(tmp_path_factory.mktemp("previous"))


@pytest.mark.timeout(300)
async def test_an_upgrade_and_a_rollback_lose_nothing(previous: Path, tmp_path: Path) -> None:
    """Some streams run from before the first replacement until after the last one, others begin in each phase."""
    everything = ["gateway.1", "gateway.2", "worker.1", "worker.2"]
    system = MixedSystem(tmp_path, previous, old=everything, drain_s=0.5, concurrency=100)
    gate = asyncio.Event()
    system.fake.play("long", Answer(deltas=lambda n: [f"call{n} ", *WORDS], gate=gate, gate_after=10))
    system.fake.play("short", Answer(deltas=lambda n: [f"call{n} ", *WORDS], delay_s=0.01))
    clients: list[Client] = []
    tasks: list[asyncio.Task[None]] = []

    def launch(model: str, count: int) -> None:
        for i in range(count):
            clients.append(Client(system, model, f"{model}-{len(clients)}", i % 2))
            tasks.append(asyncio.create_task(clients[-1].run()))

    try:
        await system.start()
        assert await versions(system) == [PREVIOUS_VERSION] * 2
        launch("long", 10)
        await system.fake.wait_calls(10)
        (first, second), (one, two) = system.gateways, system.workers
        steps = [(one, True), (first, True), (second, True), (two, True), (one, False), (first, False)]
        for process, new in steps:
            launch("short", 10)
            await system.replace(process, new=new)
            assert f'"version":"{PREVIOUS_VERSION}"' not in process.log.read_text() or not new
        launch("short", 10)
        gate.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)
        assert all(client.resets for client in clients if client.model == "long")
        for client in clients:
            await client.check(WORDS)
        assert await system.keys_without_expiry() == []
    finally:
        await system.stop()


async def versions(system: MixedSystem) -> list[str]:
    """Return the version of each gateway."""
    answers = [await system.http.get(f"{gateway.url}/connection") for gateway in system.gateways]
    return [answer.json()["version"] for answer in answers]


class Features(MixedSystem):
    """The first gateway is of this tree, the second one and the worker are of the previous release."""

    def __init__(self, folder: Path, previous: Path, receiver: WebhookReceiver) -> None:
        options: dict[str, Any] = {**JWT_SETTINGS, "auth": "jwt", "credentials": ALICE, "configuration": PRICES}
        options |= {"webhook_url": receiver.url, "webhook_secret": SECRET, "archive_url": SqliteFile(folder).url}
        super().__init__(folder, previous, old=("gateway.2", "worker.1"), workers=1, retention_min_s=0, **options)
        self.receiver = receiver

    async def get(self, path: str, gateway: int, **headers: str) -> httpx2.Response:
        return await self.http.get(f"{self.gateways[gateway].url}{path}", headers=headers)

    async def said(self, gateway: int, chat_id: str, text: str) -> str:
        """Add a turn to a chat, wait for its end, and return the stream's id."""
        stream_id = await self.post("priced", text, gateway=gateway, chat_id=chat_id)
        await self.ended(stream_id)
        return stream_id


@pytest.fixture
async def features(previous: Path, tmp_path: Path) -> AsyncIterator[Features]:
    receiver = await WebhookReceiver().start()
    system = Features(tmp_path, previous, receiver)
    try:
        await system.start()
        yield system
    finally:
        await system.stop()
        await receiver.stop()


async def test_each_version_serves_the_streams_of_the_other(features: Features) -> None:
    assert (await versions(features))[OLD] == PREVIOUS_VERSION
    features.fake.play("priced", Answer(deltas=WORDS, usage=Counts(10, 5)))
    streams: list[str] = []
    for worker in ("old", "new"):
        for first, second in ((NEW, OLD), (OLD, NEW)):
            name = f"{worker}-{first}"
            streams += await chat_goes_on(features, name, first, second)
            await stream_is_read_and_cancelled(features, name, first, second)
            await link_is_good_until_its_stream_is_deleted(features, first, second)
        await response_goes_on_without_a_socket(features, f"{worker}-socket")
        if worker == "old":
            await features.replace(features.workers[0], new=True)
    await endings_are_told_counted_and_archived(features, streams)


async def chat_goes_on(system: Features, name: str, first: int, second: int) -> list[str]:
    """Each gateway continues a chat of the other, and knows the other's idempotency keys."""
    streams = [await system.said(first, name, "one"), await system.said(second, name, "two")]
    texts = [message["content"] for message in system.fake.calls[-1].messages]
    assert texts == ["one", "".join(WORDS), "two"]
    body = ask("priced", "three", chat_id=name)
    headers = {"Idempotency-Key": name}
    both = [
        await system.http.post(f"{system.gateways[gateway].url}/chat", json=body, headers=headers)
        for gateway in (first, second)
    ]
    assert len({answer.json()["stream_id"] for answer in both}) == 1, [answer.text for answer in both]
    streams.append(both[0].json()["stream_id"])
    await system.ended(streams[-1])
    lists = [(await system.get(f"/chats/{name}", gateway)).json() for gateway in (first, second)]
    assert lists[0] == lists[1]
    return streams


async def stream_is_read_and_cancelled(system: Features, name: str, first: int, second: int) -> None:
    """A client resumes at the other gateway, which also cancels the stream."""
    gate = asyncio.Event()
    system.fake.play(name, Answer(deltas=WORDS, gate=gate, gate_after=6))
    async with await system.stream(name, gateway=first, headers=ALICE) as connection:
        seen = await connection.take(1)  # `start`
    url = f"{system.gateways[second].url}/chat"
    headers = {**ALICE, "Last-Event-ID": seen[-1].at}
    async with await open_sse("GET", f"{url}/stream/{connection.stream_id}", headers=headers) as again:
        resumed = await again.until_text("".join(WORDS[:6]))
        assert seen[0].at not in {frame.id for frame in resumed}
        assert (await system.http.post(f"{url}/{connection.stream_id}/cancel")).status_code == 202
        rest = await again.rest()
    assert [frame.data["finish_reason"] for frame in rest if frame.event == "done"] == ["cancelled"]
    call = next(call for call in system.fake.calls if call.model == name)
    await call.wait_closed()
    assert call.closed_by_client
    statuses = [await system.status(connection.stream_id, gateway=gateway) for gateway in (first, second)]
    assert [(s["status"], s["text"]) for s in statuses] == [("cancelled", "".join(WORDS[:6]))] * 2


async def link_is_good_until_its_stream_is_deleted(system: Features, first: int, second: int) -> None:
    stream_id = await system.post("priced", gateway=first)
    await system.ended(stream_id)
    made = await system.http.post(f"{system.gateways[first].url}/chat/{stream_id}/tickets", json={})
    assert made.status_code == 201, made.text
    link = made.json()["status_url"]
    assert (await system.get(link, second, Authorization="")).json()["text"] == "".join(WORDS)
    deleted = await system.http.delete(f"{system.gateways[second].url}/chat/{stream_id}")
    assert deleted.status_code == 204
    assert (await system.get(f"/chat/{stream_id}", first)).status_code == 410


async def response_goes_on_without_a_socket(system: Features, name: str) -> None:
    """The old gateway refuses the handshake with 426. A client goes on over HTTP: with the same key if it was cut
    before it knew the response, else after its last number; and over a WebSocket again."""
    held = Turnstile()
    system.fake.play(name, Answer(deltas=WORDS, turnstile=held))
    request = {"model": f"openai/{name}", "input": "hi", "background": True}
    await held.allow(3)
    async with open_socket(system, NEW, ALICE) as socket:
        await socket.send("response.create", idempotency_key=name, **request)
        seen = await socket.until("response.output_text.delta")
        socket.cut()
    with pytest.raises(InvalidStatus) as refused:
        async with open_socket(system, OLD, ALICE):
            pass
    assert refused.value.response.status_code == 426
    url, key = f"{system.gateways[OLD].url}/v1/responses", {**ALICE, "Idempotency-Key": name}
    async with await open_sse("POST", url, headers=key, json={**request, "stream": True}) as attached:
        assert [(await attached.next(event["type"])).data for event in seen] == seen
    last = seen[-1]["sequence_number"]
    where = f"{url}/{response_id(seen)}?stream=true&starting_after={last}"
    async with await open_sse("GET", where, headers=ALICE) as resumed:
        await held.allow(6)
        seen.append((await resumed.next("response.output_text.delta")).data)
    async with open_socket(system, NEW, ALICE) as socket:
        after = {"response_id": response_id(seen), "starting_after": seen[-1]["sequence_number"]}
        await socket.send("response.resume", **after)
        await held.allow(len(WORDS))
        seen += await socket.rest()
    assert text_of(seen) == "".join(WORDS)
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert len([call for call in system.fake.calls if call.model == name]) == 1


async def endings_are_told_counted_and_archived(system: Features, streams: list[str]) -> None:
    """Every stream has one webhook and one entry in the archive, and both gateways report the same sums."""
    for stream_id in streams:
        assert len(await system.receiver.next_of(stream_id)) == 1
        costs = [(await system.status(stream_id, gateway=gateway))["cost"] for gateway in (NEW, OLD)]
        assert costs[0] == costs[1] is not None

    async def all_are_counted() -> bool:
        reports = [(await system.get("/v1/usage?by=model", gateway)).json()["usage"] for gateway in (NEW, OLD)]
        calls = [group["calls"] for group in reports[0] if group["model"] == "openai/priced"]
        return bool(reports[0] == reports[1] and calls == [len(streams) + 4])  # those of links too

    await system.eventually(all_are_counted)

    async def all_are_archived() -> bool:
        found = [(await system.get("/chat?q=w29&limit=100", gateway)).json() for gateway in (NEW, OLD)]
        listed = [{entry["stream_id"] for entry in each["streams"]} for each in found]
        return listed[0] == listed[1] and set(streams) <= listed[0]

    await system.eventually(all_are_archived, timeout_s=30)
