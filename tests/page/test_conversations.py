"""The page shows chats as the gateway has them: all turns, one address for each chat, and the list."""

import asyncio
from uuid import uuid4

from selenium.webdriver import Keys
from selenium.webdriver.common.by import By

from tests.fakes.answer import Answer
from tests.page.chat_page import ENDED, INSPECT, WORDS, Page
from tests.system import System

HOSTILE = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script>'

#: Holds the responses of a path until `held[path].release()`.
_HOLD = """
const [path] = arguments;
const { fetch } = window;
const gate = Promise.withResolvers();
const hold = { release: gate.resolve, given: false };
(window.held ??= {})[path] = hold;
window.fetch = async (...request) => {
  const response = await fetch(...request);
  if (new URL(request[0], location.origin).pathname !== path) return response;
  await gate.promise;
  hold.given = true;
  return response;
};
"""


async def click_chat(page: Page, title: str) -> None:
    """Open a chat from the list."""
    await asyncio.to_thread(lambda: page.driver.find_element(By.PARTIAL_LINK_TEXT, title).click())


async def until_turns(page: Page, *turns: list[str]) -> None:
    async def are_shown() -> bool:
        return await page.turns() == list(turns)

    await page.until(are_shown)


async def test_two_turns_are_one_chat_over_reloads_back_and_forward(page: Page, system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("first", Answer(deltas=["One ", "answer."], reasoning=["Hm."]))
    system.fake.play("second", Answer(deltas=WORDS[:20], gate=gate, gate_after=10))
    await page.ask(f"First {HOSTILE}", model="openai/first")
    assert await page.until_state(*ENDED) == "done"
    address = await page.fragment()
    assert address.startswith("chat=")
    await page.ask("Second", model="openai/second")
    await page.until_longer(40)
    assert await page.fragment() == address
    first = [f"First {HOSTILE}", "One answer.", "done"]

    await page.reload()  # in the middle of the second answer
    await page.until_longer(40)
    await page.until_state("streaming")
    await until_turns(page, first, ["Second", "".join(WORDS[:10]).strip(), "streaming"])
    gate.set()
    assert await page.until_state(*ENDED) == "done"
    second = ["Second", "".join(WORDS[:20]).strip(), "done"]
    await until_turns(page, first, second)
    assert (await page.figures())["duplicates"] == 0
    (call,) = [call for call in system.fake.calls if call.model == "second"]
    sent = [(message["role"], message["content"]) for message in call.request["messages"]]
    assert sent == [("user", first[0]), ("assistant", "One answer."), ("user", "Second")]

    await page.click("new-chat")
    assert await page.turns() == []
    assert await page.fragment() == ""
    await asyncio.to_thread(page.driver.back)
    await until_turns(page, first, second)
    await asyncio.to_thread(page.driver.forward)
    await until_turns(page)
    assert HOSTILE[:30] in (await page.titles())[0]
    await page.click("history-item")
    await until_turns(page, first, second)
    inspected = await page.script(INSPECT)
    assert not {"IMG", "SCRIPT"} & set(inspected["tags"])
    assert await page.script("return [window.hacked, document.querySelectorAll('#history img').length]") == [None, 0]
    reasoning = "return document.querySelector('.turn .reasoning .said').textContent"
    assert await page.script(reasoning) == "Hm."


async def test_an_answer_continues_while_another_chat_is_on_the_screen(page: Page, system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("long", Answer(deltas=WORDS[:30], gate=gate, gate_after=10))
    system.fake.play("brief", Answer(deltas=["Brief."]))
    await page.ask("The long one", model="openai/long")
    await page.until_longer(30)
    await page.click("new-chat")
    await asyncio.to_thread(lambda: page.element("prompt").send_keys("A draft"))
    await asyncio.to_thread(lambda: page.element("prompt").clear())
    await page.ask("The brief one", model="openai/brief")
    assert await page.until_state(*ENDED) == "done"
    await page.until(lambda: _lists(page, "The brief one", "The long one"))
    await asyncio.to_thread(lambda: page.element("prompt").send_keys("Half a question"))

    await click_chat(page, "The long one")
    await page.until_longer(30)
    assert await page.text_of("answer-state") in {"streaming", "waiting"}
    assert await page.script("return document.getElementById('prompt').value") == ""
    gate.set()
    assert await page.until_state(*ENDED) == "done"
    assert await page.raw_text() == "".join(WORDS[:30])
    assert (await page.figures())["duplicates"] == 0
    await click_chat(page, "The brief one")
    await until_turns(page, ["The brief one", "Brief.", "done"])
    assert await page.script("return document.getElementById('prompt').value") == "Half a question"


async def _lists(page: Page, *titles: str) -> bool:
    """Return True if these are the newest chats. The gateway of the tests has others, too."""
    return (await page.titles())[: len(titles)] == list(titles)


async def test_a_turn_of_another_tab_appears(page: Page, system: System) -> None:
    """The other tab reports the new turn by a mark in the browser's storage."""
    gate = asyncio.Event()
    system.fake.play("brief", Answer(deltas=["Brief."]))
    system.fake.play("gated", Answer(deltas=["Still ", "here."], gate=gate, gate_after=1))
    await page.ask("First", model="openai/brief")
    assert await page.until_state(*ENDED) == "done"
    fragment = await page.fragment()
    first = page.driver.current_window_handle
    await asyncio.to_thread(page.driver.switch_to.new_window, "tab")
    second = page.driver.current_window_handle
    await page.visit(f"#{fragment}")
    await until_turns(page, ["First", "Brief.", "done"])
    await page.ask("Second", model="openai/gated")
    await page.until_longer(3)
    await asyncio.to_thread(page.driver.switch_to.window, first)
    await page.until_state("streaming")
    gate.set()
    assert await page.until_state(*ENDED) == "done"
    both = [["First", "Brief.", "done"], ["Second", "Still here.", "done"]]
    await until_turns(page, *both)
    await asyncio.to_thread(page.driver.switch_to.window, second)
    await until_turns(page, *both)
    await asyncio.to_thread(page.driver.close)
    await asyncio.to_thread(page.driver.switch_to.window, first)


async def test_a_chat_that_is_not_there_is_named_and_the_next_question_begins_another(
    page: Page, system: System
) -> None:
    system.fake.play("brief", Answer(deltas=["Brief."]))
    await page.visit("#chat=nowhere")
    await page.until(lambda: _is_noticed(page, "no such chat"))
    await page.ask("Hello", model="openai/brief")
    assert await page.until_state(*ENDED) == "done"
    assert await page.fragment() not in ("", "chat=nowhere")
    await page.until(lambda: _lists(page, "Hello"))
    await asyncio.to_thread(
        lambda: page.driver.find_element(By.CSS_SELECTOR, ".remove").send_keys(Keys.ENTER, Keys.ENTER)
    )
    await page.until(lambda: _is_gone(page, "Hello"))
    assert await page.turns() == []
    assert await page.fragment() == ""
    await page.visit("#stream=..%2Fx")
    await page.until(lambda: _is_noticed(page, "names no answer"))


async def test_a_question_in_a_chat_that_was_deleted_meanwhile_starts_no_other(page: Page, system: System) -> None:
    system.fake.play("brief", Answer(deltas=["Brief."]))
    await page.ask("First", model="openai/brief")
    assert await page.until_state(*ENDED) == "done"
    chat = (await page.fragment()).removeprefix("chat=")
    assert (await system.http.delete(f"{page.url}/chats/{chat}")).status_code == 204
    calls = len(system.fake.calls)
    await page.ask("Second", model="openai/brief")
    assert await page.until_state(*ENDED) == "error"
    assert "no longer has this chat" in await page.text_of("problem")
    await page.until(lambda: _is_noticed(page, "no such chat"))
    assert [turn[0] for turn in await page.turns()] == ["First", "Second"]  # still on the screen
    assert len(system.fake.calls) == calls


async def _is_noticed(page: Page, words: str) -> bool:
    return words in await page.text_of("notice")


async def _is_gone(page: Page, title: str) -> bool:
    return title not in (await page.titles())[:1] and await page.turns() == []


async def test_a_long_chat_is_shown_whole_and_in_order(page: Page, system: System) -> None:
    """More turns than one page of the gateway's list has; the last ones are formatted first. A question that is asked
    before they have loaded comes after them."""
    count, chat = 55, uuid4().hex
    system.fake.play("many", *(Answer(deltas=[f"**Answer** {number}"]) for number in range(count)))
    for number in range(count):
        await system.ended(await system.post("many", f"Question {number}", chat_id=chat))
    turns = [[f"Question {number}", f"Answer {number}", "done"] for number in range(count)]
    await page.visit(f"#chat={chat}")
    await until_turns(page, *turns)
    assert await page.script("return document.querySelectorAll('.body strong').length") == count

    for paths in (f"/chats/{chat}", "/chat"), ("/chat", f"/chats/{chat}"):
        await page.visit("")
        await page.until(page.models_are_there)
        turns.append(await ask_before_the_chat_has_loaded(page, system, chat, paths, turns))


async def ask_before_the_chat_has_loaded(
    page: Page, system: System, chat: str, paths: tuple[str, str], earlier: list[list[str]]
) -> list[str]:
    """Open a chat, ask in it at once, and return the new turn. ``paths``: the order in which the responses arrive."""
    gate = asyncio.Event()
    question, model = f"{paths[0]} responds first", f"late-{len(earlier)}"
    system.fake.play(model, Answer(deltas=["Still ", "here."], gate=gate, gate_after=1))
    for path in paths:
        await hold(page, path)
    await page.script(f"location.hash = 'chat={chat}'")
    await page.ask(question, model=f"openai/{model}")
    await until_turns(page, [question, "", "queued"])
    for path in paths:
        await release(page, path)
    await until_turns(page, *earlier, [question, "Still", "streaming"])
    assert await asyncio.to_thread(page.element("stop").is_displayed)
    gate.set()
    await until_turns(page, *earlier, [question, "Still here.", "done"])
    (call,) = [call for call in system.fake.calls if call.model == model]
    assert len(call.request["messages"]) == 2 * len(earlier) + 1
    return [question, "Still here.", "done"]


async def hold(page: Page, path: str) -> None:
    """Keep the responses of a path from the page, until they are released."""
    await asyncio.to_thread(page.driver.execute_script, _HOLD, path)


async def release(page: Page, path: str) -> None:
    """Give the page the responses of a path, and wait until it has one."""

    async def has_response() -> bool:
        return bool(await asyncio.to_thread(page.driver.execute_script, "return held[arguments[0]].given", path))

    await asyncio.to_thread(page.driver.execute_script, "held[arguments[0]].release()", path)
    await page.until(has_response)


async def test_a_turn_of_another_device_appears_before_a_later_question(page: Page, system: System) -> None:
    """The page learns of the other device's turn after its own next question, which is still being answered."""
    gate = asyncio.Event()
    system.fake.play("brief", Answer(deltas=["Brief."]))
    system.fake.play("gated", Answer(deltas=["Still ", "here."], gate=gate, gate_after=1))
    await page.ask("First", model="openai/brief")
    assert await page.until_state(*ENDED) == "done"
    chat = (await page.fragment()).removeprefix("chat=")
    await system.ended(await system.post("brief", "Second", chat_id=chat, history="add"))
    await page.ask("Third", model="openai/gated")
    before = [["First", "Brief.", "done"], ["Second", "Brief.", "done"]]
    await until_turns(page, *before, ["Third", "Still", "streaming"])
    assert await asyncio.to_thread(page.element("stop").is_displayed)
    assert await page.text_of("answer-state") in {"streaming", "waiting"}
    gate.set()
    await until_turns(page, *before, ["Third", "Still here.", "done"])
    await system.ended(await system.post("brief", "Fourth", chat_id=chat, history="add"))
    await page.script("window.dispatchEvent(new Event('focus'))")
    await until_turns(page, *before, ["Third", "Still here.", "done"], ["Fourth", "Brief.", "done"])


async def test_a_question_that_was_refused_stays_above_the_answer_of_another_device(
    page: Page, system: System
) -> None:
    """The other device's answer can be stopped here."""
    gate = asyncio.Event()
    system.fake.play("brief", Answer(deltas=["Brief."]))
    system.fake.play("gated", Answer(deltas=["Still ", "here."], gate=gate, gate_after=1))
    await page.ask("First", model="openai/brief")
    assert await page.until_state(*ENDED) == "done"
    chat = (await page.fragment()).removeprefix("chat=")
    await system.post("gated", "Second", chat_id=chat, history="add")
    await page.ask("Refused", model=f"openai/{'x' * 1000}")
    first = [["First", "Brief.", "done"], ["Refused", "", "error"]]
    await until_turns(page, *first, ["Second", "Still", "streaming"])
    await page.click("stop")
    await until_turns(page, *first, ["Second", "Still", "cancelled"])
    gate.set()


async def test_a_question_in_a_chat_that_was_deleted_before_it_has_loaded_starts_no_other(
    page: Page, system: System
) -> None:
    chat = uuid4().hex
    system.fake.play("brief", Answer(deltas=["Brief."]))
    await system.ended(await system.post("brief", "First", chat_id=chat))
    await hold(page, f"/chats/{chat}")
    await page.script(f"location.hash = 'chat={chat}'")
    assert (await system.http.delete(f"{page.url}/chats/{chat}")).status_code == 204
    calls = len(system.fake.calls)
    await page.ask("Second", model="openai/brief")
    assert await page.until_state(*ENDED) == "error"
    assert "no longer has this chat" in await page.text_of("problem")
    assert len(system.fake.calls) == calls
