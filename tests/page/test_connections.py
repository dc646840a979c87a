"""The chat page shows each answer whole and once, however often its connection is lost or it is reloaded."""

import asyncio
import urllib.request
from functools import partial

from selenium.webdriver import Chrome

from tests.conftest import StartSystem
from tests.fakes.answer import Answer
from tests.page.chat_page import BRIEF, ENDED, HALF_CALL, WORDS, Page, holds
from tests.page.cutting_proxy import CuttingProxy
from tests.system import System


async def test_an_answer_streams_to_its_end(page: Page) -> None:
    await page.ask("Hello, what is a headrace?", model="demo/demo")
    await page.until_longer(40)
    assert await page.text_of("answer")
    assert await page.until_state(*ENDED) == "done"

    status = await page.status()
    assert await page.raw_text() == status["text"] != ""
    assert (await page.figures())["connections"] == 1
    assert (await page.figures())["duplicates"] == 0
    log = await asyncio.to_thread(page.driver.get_log, "browser")
    assert [line["message"] for line in log if line["level"] == "SEVERE"] == []


async def test_a_cut_connection_loses_nothing(page: Page, system: System) -> None:
    gate = asyncio.Event()  # the answer ends after the last cut, however slow the machine is
    system.fake.play("gated", Answer(deltas=WORDS, delay_s=0.05, gate=gate, gate_after=len(WORDS) - 1))
    await page.ask("Count", model="openai/gated")
    for cuts in (1, 2, 3):
        await page.until_state("streaming")
        before = len(await page.raw_text())
        await page.until_longer(before)
        await page.click("cut")
        await page.until(partial(_has_connected_again, page, cuts))
        assert len(await page.raw_text()) < len("".join(WORDS))
    gate.set()
    assert await page.until_state(*ENDED, timeout_s=60) == "done"

    assert await page.raw_text() == (await page.status())["text"] == "".join(WORDS)
    figures = await page.figures()
    assert (figures["connections"], figures["duplicates"]) == (4, 0)
    assert await page.text_of("last-id") == f"{(await page.text_of('last-id')).split('-')[0]}-{figures['events']}"


async def _has_connected_again(page: Page, times: int) -> bool:
    return (await page.figures())["connections"] > times


async def test_the_keep_cutting_option_cuts_again_and_again(page: Page, system: System) -> None:
    gate = asyncio.Event()  # the answer ends after a cut, however slow the machine is
    system.fake.play("kept-cutting", Answer(deltas=WORDS[:200], delay_s=0.02, gate=gate, gate_after=199))
    await page.ask("Count", model="openai/kept-cutting")
    await page.script("document.querySelector('[data-testid=\"keep-cutting\"]').click()")
    await page.until(partial(_has_connected_again, page, 1))
    gate.set()
    assert await page.until_state(*ENDED) == "done"
    assert await page.raw_text() == "".join(WORDS[:200])
    figures = await page.figures()
    assert figures["connections"] >= 2
    assert figures["duplicates"] == 0


async def test_a_lost_network_loses_nothing(driver: Chrome, system: System) -> None:
    gate = asyncio.Event()  # the answer ends after the last cut, however slow the machine is
    system.fake.play("lost-network", Answer(deltas=WORDS, delay_s=0.05, gate=gate, gate_after=len(WORDS) - 1))
    async with CuttingProxy(system.gateways[0].url) as proxy:
        page = Page(driver, proxy.url)
        await page.open()
        await page.ask("Count", model="openai/lost-network")
        for cuts in (1, 2, 3):
            await page.until_state("streaming")
            await page.until_longer(len(await page.raw_text()) + 20)
            proxy.is_away = True
            assert proxy.cut() > 0
            await page.until_state("reconnecting")
            proxy.is_away = False
            await page.until(partial(_has_connected_again, page, cuts))
        gate.set()
        assert await page.until_state(*ENDED) == "done"

        assert await page.raw_text() == (await page.status())["text"] == "".join(WORDS)
        figures = await page.figures()
        assert (figures["connections"], figures["duplicates"]) == (4, 0)


async def test_a_deploy_behind_a_load_balancer_loses_nothing(driver: Chrome, system: System) -> None:
    """EventSource gives up for good after a 502; the page does not."""
    system.fake.play("brief", BRIEF)
    async with CuttingProxy(system.gateways[0].url) as proxy:
        page = Page(driver, proxy.url)
        await page.open()
        await page.ask("Count", model="openai/brief")
        await page.until_longer(50)
        proxy.is_deploying = True
        proxy.cut()
        await page.until(lambda: holds(lambda: proxy.refused >= 3))
        assert await page.text_of("answer-state") == "reconnecting"
        proxy.is_deploying = False
        assert await page.until_state(*ENDED) == "done"

        assert await page.raw_text() == "".join(WORDS[:200])
        assert (await page.figures())["duplicates"] == 0


async def test_stop_keeps_the_partial_text(page: Page, system: System) -> None:
    never = asyncio.Event()
    system.fake.play("stopped-early", Answer(deltas=WORDS, delay_s=0.02, gate=never, gate_after=len(WORDS) - 1))
    await page.ask("Count", model="openai/stopped-early")
    await page.until_longer(50)
    await page.click("stop")
    assert await page.until_state(*ENDED) == "cancelled"

    status = await page.status()
    assert status["finish_reason"] == "cancelled"
    text = await page.raw_text()
    assert text == status["text"]
    assert 50 < len(text) < len("".join(WORDS))
    assert (await page.text_of("answer")).startswith("word0 word1")


async def test_a_reload_continues_and_the_list_reopens_an_answer(page: Page, system: System) -> None:
    system.fake.play("brief", Answer(deltas=WORDS[:100], delay_s=0.02))
    await page.ask("Count to a hundred", model="openai/brief")
    await page.until_longer(50)
    await page.reload()  # in the middle
    assert await page.until_state(*ENDED) == "done"
    assert await page.raw_text() == "".join(WORDS[:100])

    await page.click("new-chat")
    assert await page.text_of("history-item") != ""
    assert await page.script("return document.querySelectorAll('.message').length") == 0
    await page.click("history-item")
    assert await page.until_state(*ENDED) == "done"
    assert await page.raw_text() == (await page.status())["text"] == "".join(WORDS[:100])
    assert "word99" in await page.text_of("answer")
    assert (await page.titles())[0] == "Count to a hundred"


async def test_a_deleted_stream_is_shown_as_deleted(page: Page, system: System) -> None:
    system.fake.play("brief", Answer(deltas=WORDS[:5]))
    await page.ask("Count", model="openai/brief")
    assert await page.until_state(*ENDED) == "done"
    stream_id = await page.stream_id()
    delete = urllib.request.Request(f"{page.url}/chat/{stream_id}", method="DELETE")
    await asyncio.to_thread(lambda: urllib.request.urlopen(delete, timeout=60).close())

    await page.visit(f"#stream={stream_id}")
    assert await page.until_state(*ENDED) == "error"
    assert "deleted" in await page.text_of("problem")


async def test_an_error_of_the_stream_does_not_reconnect(page: Page, system: System) -> None:
    system.fake.play("busy", Answer(status=429))
    await page.ask("Hello", model="openai/busy")
    assert await page.until_state(*ENDED) == "error"
    assert "provider_rate_limited" in await page.text_of("problem")
    assert (await page.figures())["connections"] == 1
    assert (await page.status())["finish_reason"] == "error"


async def test_another_attempt_replaces_everything_of_the_one_before(
    driver: Chrome, start_system: StartSystem
) -> None:
    system = await start_system(gateways=1, workers=1, lease_s=4)
    first = Answer(deltas=['{"a": 1, "b": 2, '], reasoning=["Hm."], refusal=["No."], tools=(HALF_CALL,), end="hang")
    system.fake.play("lost", first, Answer(deltas=['{"c": 3}']))
    page = Page(driver, system.url)
    await page.open()
    await page.answer_as("JSON")
    await page.ask("Hello", model="openai/lost")
    before = await page.until_shown(lambda shown: bool(shown.calls and shown.tree))
    assert before.value == {"a": 1, "b": 2}
    assert (before.reasoning, before.refusal) == ("Hm.", "The model refusesNo.")
    system.workers[0].stop()
    system.workers[0].start()
    assert await page.until_state(*ENDED) == "done"
    after = await page.shown()
    assert (after.value, after.raw) == ({"c": 3}, '{"c": 3}')
    assert (after.reasoning, after.refusal, after.calls) == ("", "", [])
