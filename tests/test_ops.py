"""The operators' page and API require the scope admin, show streams without their content, and can cancel them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest
import pytest_asyncio
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from shared.broker.overview import MOST_LIVE
from tests.browser import browser, need_browser
from tests.conftest import StartSystem
from tests.credentials import AUDIENCE, JWT_SECRET, bearer, make_key, token
from tests.fakes.answer import Answer
from tests.responses import code_of
from tests.system import System

HELD = Answer(deltas=("canary-answer ",) * 5, end="hang")


@pytest.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(
        tmp_path_factory.mktemp("ops"),
        providers=("openai",),
        gateways=1,
        workers=1,
        auth="keys,jwt",
        jwt_secret=JWT_SECRET,
        jwt_audience=AUDIENCE,
        credentials=bearer(token("boot")),
        concurrency=2,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def overview(system: System, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = await system.http.get(f"{system.url}/ops/overview", headers=headers)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def timeline(system: System, stream_id: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = await system.http.get(f"{system.url}/ops/streams/{stream_id}", headers=headers)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def kinds(stream: dict[str, Any]) -> list[str]:
    return [each["what"] for each in stream["timeline"]]


# --- timeline and overview


async def test_a_timeline_shows_a_stream_from_creation_to_end(system: System) -> None:
    """It has resumes and cancels too, but neither prompt nor answer."""
    system.fake.play("told", HELD)
    stream_id = await system.post("told", "canary-prompt", metadata={"m": "canary-metadata"})
    async with await system.read(stream_id) as reader:
        first = await reader.next("token")
    async with await system.read(stream_id, first.id, gateway=1):
        pass

    async def is_resumed() -> dict[str, Any] | None:
        stream = await timeline(system, stream_id)
        return stream if kinds(stream)[-1] == "resumed" else None

    running = await system.eventually(is_resumed)
    assert kinds(running) == ["created", "claimed", "first_token", "resumed"]
    assert (running["status"], running["attempt"], running["resumes"]) == ("running", 1, 1)
    assert (running["provider"], running["model"], running["owner"]) == ("openai", "told", "anonymous")

    async def is_listed() -> bool:
        seen = await overview(system)
        workers = [worker["id"] for worker in seen["workers"] if worker["streams"]]
        mine = [each for each in seen["streams"] if each["stream_id"] == stream_id]
        return bool(mine) and mine[0]["worker"] in workers

    await system.eventually(is_listed)
    assert (await system.http.post(f"{system.url}/ops/streams/{stream_id}/cancel")).status_code == 202
    await system.ended(stream_id)
    ended = await timeline(system, stream_id)
    assert kinds(ended) == ["created", "claimed", "first_token", "resumed", "cancel_asked", "ended"]
    assert ended["timeline"][-1]["detail"] == "cancelled: cancelled"
    assert ended["events"] > 1
    times = [each["at"] for each in ended["timeline"]]
    assert times == sorted(times)

    async def is_among_the_last() -> dict[str, Any] | None:
        seen = await overview(system)
        return seen if stream_id in {each["stream_id"] for each in seen["ended"]} else None

    seen = await system.eventually(is_among_the_last)
    assert sum(minute["cancelled"] for minute in seen["minutes"]) >= 1
    assert "canary" not in json.dumps([running, ended, seen])


async def test_a_failure_is_counted_with_its_reason(system: System) -> None:
    system.fake.play("fails", Answer(status=401))
    stream_id = await system.post("fails")
    await system.ended(stream_id)

    async def is_there() -> dict[str, Any] | None:
        seen = await overview(system)
        return next((each for each in seen["failed"] if each["stream_id"] == stream_id), None)

    assert (await system.eventually(is_there))["reason"] == "provider_auth"
    assert (await overview(system))["failures"]["provider_auth"] >= 1
    assert (await timeline(system, stream_id))["error"]["code"] == "provider_auth"


async def test_a_timeline_shows_failed_providers_and_fallbacks(impatient: System) -> None:
    impatient.fake.play("told-passes", Answer(status=503), Answer(deltas=("said",)))
    asked_again = await impatient.post("told-passes")
    await impatient.ended(asked_again)
    impatient.fake.play("told-refuses", Answer(status=401))
    asked_another = await impatient.post("told-refuses", fallbacks=["anthropic/told-passes"])
    await impatient.ended(asked_another)
    for stream_id, failure in (asked_again, "openai: provider_unavailable"), (asked_another, "openai: provider_auth"):
        stream = await timeline(impatient, stream_id)
        assert kinds(stream) == ["created", "claimed", "provider_failed", "first_token", "ended"]
        assert stream["timeline"][2]["detail"] == failure


async def test_a_deleted_stream_is_in_no_list(system: System) -> None:
    system.fake.play("fails", Answer(status=401))
    stream_id = await system.post("fails")
    await system.ended(stream_id)
    assert (await system.http.delete(f"{system.url}/chat/{stream_id}")).status_code == 204
    assert (await system.http.get(f"{system.url}/ops/streams/{stream_id}")).status_code == 404

    async def is_gone() -> bool:
        return stream_id not in json.dumps(await overview(system))

    await system.eventually(is_gone)


async def test_the_overview_lists_some_streams_and_counts_all(system: System) -> None:
    system.fake.play("held", Answer(end="hang"))
    ids = await asyncio.gather(*(system.post("held") for _ in range(MOST_LIVE + 20)))

    async def are_counted() -> dict[str, Any] | None:
        seen = await overview(system)
        return seen if seen["live"] >= len(ids) else None

    seen = await system.eventually(are_counted)
    assert 0 < len(seen["streams"]) <= MOST_LIVE < seen["live"]
    url = f"{system.url}/ops/streams"
    responses = await asyncio.gather(*(system.http.post(f"{url}/{stream_id}/cancel") for stream_id in ids))
    assert {answer.status_code for answer in responses} == {202}
    await asyncio.gather(*(system.ended(stream_id) for stream_id in ids))


# --- access


async def test_the_ops_api_requires_the_scope_admin(guarded: System) -> None:
    guarded.fake.play("told", HELD)
    alice = await make_key(guarded, "alice")
    mine = (await guarded.http.post(f"{guarded.url}/chat", json=_ask("told"), headers=bearer(alice))).json()
    stream_id = mine["stream_id"]
    admin = await make_key(guarded, "operator", "--scopes", "admin")
    paths = (
        ("GET", "/ops/overview"),
        ("GET", f"/ops/streams/{stream_id}"),
        ("POST", f"/ops/streams/{stream_id}/cancel"),
    )
    for method, path in paths:
        for headers, status in (
            ({"Authorization": ""}, 401),
            (bearer(alice), 403),
            (bearer(token("alice")), 403),
            (bearer(token("alice", scope="chat read cancel")), 403),
        ):
            answer = await guarded.http.request(method, guarded.url + path, headers=headers)
            assert answer.status_code == status, (path, headers)
    refused = await guarded.http.get(f"{guarded.url}/ops/overview", headers=bearer(alice))
    assert "lack the scope admin" in refused.json()["error"]["message"]
    # An operator sees the stream and may cancel it, but cannot read it.
    assert (await timeline(guarded, stream_id, bearer(admin)))["owner"] == "key:alice"
    for path in (f"/chat/{stream_id}", f"/chat/stream/{stream_id}"):
        assert (await guarded.http.get(guarded.url + path, headers=bearer(admin))).status_code == 403
    jwt = bearer(token("somebody", scope="admin"))
    assert (await guarded.http.post(f"{guarded.url}{paths[2][1]}", headers=jwt)).status_code == 202
    await guarded.eventually(lambda: guarded.field(stream_id, "ended"))


async def test_a_timeline_shows_the_queue_position(guarded: System) -> None:
    guarded.fake.play("held", Answer(end="hang"))
    admin = bearer(token("somebody", scope="admin"))
    ids = [await guarded.post("held") for _ in range(2)]
    for stream_id in ids:
        await guarded.eventually(lambda: guarded.field(stream_id, "started"))  # noqa: B023  awaited at once
    ids.append(await guarded.post("held"))
    waiting = await timeline(guarded, ids[-1], admin)
    assert (waiting["status"], waiting["place"], kinds(waiting)) == ("queued", 1, ["created"])

    async def is_seen() -> dict[str, Any] | None:
        seen = await overview(guarded, admin)
        return seen if seen["waiting"] and seen["workers"][0]["streams"] else None

    seen = await guarded.eventually(is_seen)
    assert (seen["waiting"], seen["live"], seen["workers"][0]["slots"]) == (1, 3, 2)
    assert seen["oldest_waiting_s"] > 0
    for stream_id in reversed(ids):
        await guarded.http.post(f"{guarded.url}/ops/streams/{stream_id}/cancel", headers=admin)
        await guarded.eventually(lambda: guarded.field(stream_id, "ended"))  # noqa: B023  awaited at once
    assert kinds(await timeline(guarded, ids[-1], admin)) == ["created", "cancel_asked", "ended"]


async def test_without_authentication_the_page_is_only_for_the_same_machine(start_system: StartSystem) -> None:
    """Also with ``HEADRACE_AUTH=none``, which accepts other hosts and proxies everywhere else."""
    system = await start_system(gateways=1, workers=1, auth="none")
    url = f"{system.url}/ops/overview"
    for headers in (
        {"Host": "chat.example.com"},
        {"Host": "rebound.example.com:8000"},
        {"X-Forwarded-Proto": "https"},
        {"Via": "1.1 p"},
    ):
        assert (await system.http.get(f"{system.url}/v1/models", headers=headers)).status_code == 200
        answer = await system.http.get(url, headers=headers)
        assert code_of(answer) == (403, "forbidden")
        assert "from the same machine" in answer.json()["error"]["message"]
    assert (await system.http.get(url)).status_code == 200


async def test_a_timeline_shows_a_takeover(guarded: System) -> None:
    """Last test with this worker: the system has another one afterwards."""
    guarded.fake.play("told", HELD)
    stream_id = await guarded.post("told")
    admin = bearer(token("somebody", scope="admin"))

    async def has(*wanted: str) -> dict[str, Any] | None:
        stream = await timeline(guarded, stream_id, admin)
        return stream if kinds(stream) == ["created", *wanted] else None

    before = await guarded.eventually(lambda: has("claimed", "first_token"))
    guarded.workers[0].stop()
    guarded.workers[0].start()
    after = await guarded.eventually(lambda: has("claimed", "first_token", "taken_over", "first_token"), timeout_s=90)
    assert after["attempt"] == 2
    assert after["worker"] not in {None, before["worker"]}
    await guarded.http.post(f"{guarded.url}/ops/streams/{stream_id}/cancel", headers=admin)
    await guarded.eventually(lambda: guarded.field(stream_id, "ended"))


def _ask(model: str) -> dict[str, Any]:
    return {"provider": "openai", "model": model, "messages": [{"role": "user", "content": "hi"}]}


# --- the page, in a real browser


class OpsPage:
    """The operators' page in a browser. Selenium blocks, so everything runs in a thread."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    async def open(self, url: str) -> None:
        await asyncio.to_thread(self.driver.get, url)

    async def text(self, selector: str) -> str:
        """Return the visible text, or '' if there is no such element."""
        script = "const e = document.querySelector(arguments[0]); return e?.checkVisibility() ? e.textContent : ''"
        return str(await asyncio.to_thread(self.driver.execute_script, script, selector))

    async def until(self, selector: str, words: str) -> str:
        async with asyncio.timeout(60):
            while words not in (text := await self.text(selector)):
                await asyncio.sleep(0.03)
        return text

    async def type(self, selector: str, *keys: str) -> None:
        element = await asyncio.to_thread(self.driver.find_element, By.CSS_SELECTOR, selector)
        await asyncio.to_thread(element.send_keys, *keys)


def at(test_id: str) -> str:
    return f'[data-testid="{test_id}"]'


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page() -> AsyncIterator[OpsPage]:
    need_browser()
    with ExitStack() as stack:
        driver = await asyncio.to_thread(stack.enter_context, browser())
        yield OpsPage(driver)
        await asyncio.to_thread(stack.close)


async def test_an_operator_opens_and_cancels_a_stream_by_keyboard(page: OpsPage, system: System) -> None:
    """The test uses no mouse."""
    await asyncio.to_thread(page.driver.get_log, "browser")  # forgets the messages of other tests
    system.fake.play("told", HELD)
    stream_id = await system.post("told", "canary-prompt")
    row = f'tr[data-id="{stream_id}"]'
    await page.open(f"{system.url}/ops")
    assert "openai/told" in await page.until(row, "running")
    assert int(await page.text(at("figure-live"))) >= 1
    await page.type(f"{row} button", Keys.ENTER)
    assert "created and queued" in await page.until(at("timeline"), "first token")
    await page.type(at("stop"), Keys.ENTER)
    assert "cancel requested" in await page.until(at("timeline"), "ended: cancelled")
    await page.until(at("detail-state"), "cancelled")  # a response that was sent before may still come
    assert (await system.ended(stream_id))["finish_reason"] == "cancelled"
    await page.type(at("detail"), Keys.ESCAPE)
    assert await page.text(at("timeline")) == ""
    await page.type(at("list-ended"), Keys.ENTER)
    await page.until(row, "cancelled")
    source = await asyncio.to_thread(lambda: page.driver.page_source)
    assert "canary" not in source
    log = await asyncio.to_thread(page.driver.get_log, "browser")
    assert [line["message"] for line in log if line["level"] == "SEVERE"] == []


async def test_a_key_without_the_scope_is_refused_with_a_message(page: OpsPage, guarded: System) -> None:
    """After the key is forgotten, one with the scope is accepted."""
    await page.open(f"{guarded.url}/ops")
    await page.until("#login-title", "requires an API key")
    await page.type(at("key"), await make_key(guarded, "alice"), Keys.ENTER)
    await page.until(at("trouble"), "lack the scope admin")
    assert await page.text("#all") == ""
    await page.type(at("forget-key"), Keys.ENTER)
    await page.until("#login-title", "requires an API key")
    await page.type(at("key"), await make_key(guarded, "operator", "--scopes", "admin"), Keys.ENTER)
    await page.until("#processes", "slots")
    assert await page.text(at("trouble")) == ""
