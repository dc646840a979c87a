"""An answer is regenerated, a question is edited: the model gets the turns before, and a reload shows the same."""

import asyncio
from typing import Any

from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.fakes.answer import Answer
from tests.page.chat_page import ENDED, Page
from tests.system import System

_VISIBLE = """
return [...document.querySelectorAll(".turn")].filter((turn) => turn.checkVisibility()).map((turn) => [
  turn.querySelector(".bubble").textContent,
  turn.querySelector(".assistant .body").textContent.trim(),
  turn.dataset.state,
]);
"""
_LABELS = """
return [...document.querySelectorAll(".turn button")]
  .filter((button) => button.checkVisibility())
  .map((button) => button.textContent);
"""
_BUTTON = """
return [...document.querySelectorAll(".turn button")].findLast((button) =>
  button.textContent === arguments[0] && button.checkVisibility());
"""


async def click(page: Page, label: str) -> None:
    """Click the last visible button of the conversation with this label, once there is one."""

    def press() -> bool:
        button: WebElement | None = page.driver.execute_script(_BUTTON, label)
        if button is not None:
            page.driver.execute_script("arguments[0].click()", button)
        return button is not None

    await page.until(lambda: asyncio.to_thread(press))


async def until_visible(page: Page, *turns: list[str]) -> None:
    seen: Any = None

    async def are_visible() -> bool:
        nonlocal seen
        seen = await page.script(_VISIBLE)
        return bool(seen == list(turns))

    try:
        await page.until(are_visible)
    except TimeoutError:
        raise AssertionError(f"shown: {seen}") from None


async def type_keys(page: Page, *keys: str) -> None:
    """Type into the element that has the focus."""
    await asyncio.to_thread(lambda: ActionChains(page.driver).send_keys(*keys).perform())


def sent(system: System, model: str) -> list[list[tuple[str, Any]]]:
    """Return the messages of each call of a model."""
    calls = [call for call in system.fake.calls if call.model == model]
    return [[(each["role"], each["content"]) for each in call.request["messages"]] for call in calls]


async def test_a_regenerated_answer_replaces_the_old_one_also_after_a_reload(page: Page, system: System) -> None:
    system.fake.play("regenerated", *(Answer(deltas=[f"Answer {number}"]) for number in range(1, 6)))
    await page.ask("First", model="openai/regenerated")
    first = ["First", "Answer 1", "done"]
    await until_visible(page, first)
    await page.ask("Second", model="openai/regenerated")
    await until_visible(page, first, ["Second", "Answer 2", "done"])
    await click(page, "Regenerate")
    await until_visible(page, first, ["Second", "Answer 3", "done"])
    before = [("user", "First"), ("assistant", "Answer 1"), ("user", "Second")]
    assert sent(system, "regenerated")[1:] == [before, before]
    assert await page.script("return document.activeElement.id") in {"prompt", "scroll"}

    await page.reload()
    await until_visible(page, first, ["Second", "Answer 3", "done"])
    await click(page, "Show")
    await until_visible(page, first, ["Second", "Answer 2", "done"], ["Second", "Answer 3", "done"])
    await click(page, "Hide")
    await click(page, "Regenerate")
    await until_visible(page, first, ["Second", "Answer 4", "done"])
    assert sent(system, "regenerated")[-1] == before
    await page.ask("Third", model="openai/regenerated")
    await until_visible(page, first, ["Second", "Answer 4", "done"], ["Third", "Answer 5", "done"])
    assert sent(system, "regenerated")[-1] == [*before, ("assistant", "Answer 4"), ("user", "Third")]


async def test_a_question_is_edited_and_what_follows_is_asked_anew(page: Page, system: System) -> None:
    system.fake.play("edited", *(Answer(deltas=[f"Answer {number}"]) for number in range(1, 6)))
    for number in (1, 2, 3):
        await page.ask(f"Question {number}", model="openai/edited")
        await page.until_state(*ENDED)
    turns = [[f"Question {number}", f"Answer {number}", "done"] for number in (1, 2, 3)]
    await asyncio.to_thread(lambda: page.element("prompt").send_keys("A draft"))
    edit = "[...document.querySelectorAll('.edit')][1]"
    await page.script(f"{edit}.click()")
    await page.until(lambda: page.script("return document.activeElement.closest('.editor') !== null"))
    await type_keys(page, " that is not sent", Keys.ESCAPE)
    await until_visible(page, *turns)
    assert await page.script(f"return document.activeElement === {edit}")

    await page.script(f"{edit}.click()")
    await page.until(lambda: page.script("return document.activeElement.value === 'Question 2'"))
    await type_keys(page, ", edited", Keys.ENTER)
    edited = ["Question 2, edited", "Answer 4", "done"]
    await until_visible(page, turns[0], edited)
    before = [("user", "Question 1"), ("assistant", "Answer 1")]
    assert sent(system, "edited")[-1] == [*before, ("user", "Question 2, edited")]
    assert await page.script("return document.activeElement.id") in {"prompt", "scroll"}
    assert await page.script("return document.getElementById('prompt').value") == "A draft"

    await page.reload()
    await until_visible(page, turns[0], edited)
    assert await page.script("return document.getElementById('prompt').value") == "A draft"
    await page.script("document.querySelector('.edit').click()")  # the question that began the chat
    await page.until(lambda: page.script("return document.activeElement.value === 'Question 1'"))
    await type_keys(page, Keys.HOME, "My ")
    await click(page, "Save")
    await until_visible(page, ["My Question 1", "Answer 5", "done"])
    assert sent(system, "edited")[-1] == [("user", "My Question 1")]


async def test_an_answer_that_was_stopped_failed_or_refused_is_asked_again(page: Page, system: System) -> None:
    system.fake.play("asked-again", Answer(deltas=["Half"], end="hang"), Answer(status=400), Answer(deltas=["Whole"]))
    await page.ask("Hello", model="openai/asked-again")
    await page.until_longer(3)
    assert await page.script(_LABELS) == ["Copy"]  # nothing can be asked again while an answer comes
    await page.click("stop")
    assert await page.until_state(*ENDED) == "cancelled"
    await click(page, "Regenerate")
    await until_visible(page, ["Hello", "", "error"])
    await click(page, "Regenerate")
    whole = ["Hello", "Whole", "done"]
    await until_visible(page, whole)
    assert sent(system, "asked-again") == [[("user", "Hello")]] * 3

    system.fake.play("good", Answer(deltas=["Good"]))
    choose = "document.getElementById('model-name').value = arguments[0]"
    await page.script(choose.replace("arguments[0]", f"'{'x' * 1000}'"))
    await click(page, "Regenerate")
    await until_visible(page, whole, ["Hello", "", "error"])  # the gateway refuses the model, so nothing is replaced
    await page.script(choose.replace("arguments[0]", "'good'"))
    await click(page, "Regenerate")
    await until_visible(page, ["Hello", "Good", "done"])
    await page.reload()
    await until_visible(page, ["Hello", "Good", "done"])


async def test_a_failed_question_is_asked_again_after_later_answers_and_not_instead_of_them(
    page: Page, system: System
) -> None:
    half = Answer(deltas=["Half"], end="error_in_band")
    system.fake.play("flaky", half, Answer(deltas=["Fine."]), Answer(deltas=["Whole"]))
    await page.ask("First", model="openai/flaky")
    assert await page.until_state(*ENDED) == "error"
    await page.ask("Second", model="openai/flaky")
    assert await page.until_state(*ENDED) == "done"
    await click(page, "Try again")
    answers = [["First", "Half", "error"], ["Second", "Fine.", "done"], ["First", "Whole", "done"]]
    await until_visible(page, *answers)
    assert [text for _, text in sent(system, "flaky")[-1]] == ["First", "Half", "Second", "Fine.", "First"]


async def test_a_chat_that_was_deleted_meanwhile_is_not_begun_again(page: Page, system: System) -> None:
    system.fake.play("brief", Answer(deltas=["Brief."]))
    await page.ask("First", model="openai/brief")
    await until_visible(page, ["First", "Brief.", "done"])
    chat = (await page.fragment()).removeprefix("chat=")
    assert (await system.http.delete(f"{page.url}/chats/{chat}")).status_code == 204
    calls = len(sent(system, "brief"))
    await click(page, "Regenerate")
    await page.until(lambda: page.script("return notice.textContent.includes('no such chat')"))
    await until_visible(page, ["First", "Brief.", "done"])
    assert len(sent(system, "brief")) == calls


async def test_a_chat_whose_beginning_is_gone_is_not_asked_again_without_it(page: Page, system: System) -> None:
    system.fake.play("brief", Answer(deltas=["Brief."]))
    await page.ask("First", model="openai/brief")
    await until_visible(page, ["First", "Brief.", "done"])
    chat = (await page.fragment()).removeprefix("chat=")
    first = await page.script("return document.querySelector('.turn').dataset.stream")
    await system.ended(await system.post("brief", "Second", chat_id=chat, history="add"))
    assert (await system.http.delete(f"{page.url}/chat/{first}")).status_code == 204
    await page.reload()
    await until_visible(page, ["Second", "Brief.", "done"])
    assert set(await page.script(_LABELS)) == {"Copy", "Copy answer"}
    await page.ask("Third", model="openai/brief")
    await until_visible(page, ["Second", "Brief.", "done"], ["Third", "Brief.", "done"])
    assert set(await page.script(_LABELS)) == {"Copy", "Copy answer"}
    assert sent(system, "brief")[-1][0] == ("user", "First")  # the gateway still has it


async def test_a_refused_question_is_not_asked_again_after_a_turn_that_was_replaced(
    page: Page, system: System
) -> None:
    system.fake.play("brief", Answer(deltas=["Brief."]))
    for question in ("First", "Second"):
        await page.ask(question, model="openai/brief")
        assert await page.until_state(*ENDED) == "done"
    await page.script(f"document.getElementById('model-name').value = '{'x' * 1000}'")
    await click(page, "Regenerate")
    before = [["First", "Brief.", "done"], ["Second", "Brief.", "done"]]
    await until_visible(page, *before, ["Second", "", "error"])
    edits = "return [...document.querySelectorAll('.edit')].filter((button) => button.checkVisibility()).length"
    assert await page.script(edits) == 3
    chat = (await page.fragment()).removeprefix("chat=")
    messages = [{"role": "user", "content": "Another beginning"}]
    await system.ended(await system.post("brief", chat_id=chat, history="given", messages=messages))
    await page.script("window.dispatchEvent(new Event('focus'))")
    other = ["Another beginning", "Brief.", "done"]
    await page.until(lambda: page.script("return document.querySelectorAll('.turn').length === 4"))
    await page.until(lambda: page.script(f"{edits} === 0"))

    async def is_visible() -> bool:
        return other in await page.script(_VISIBLE)

    await page.until(is_visible)


async def test_another_programs_branch_is_shown_and_its_unknown_beginning_is_not_replaced(
    page: Page, system: System
) -> None:
    system.fake.play("brief", Answer(deltas=["Brief."]))
    await page.ask("First", model="openai/brief")
    await until_visible(page, ["First", "Brief.", "done"])
    chat = (await page.fragment()).removeprefix("chat=")
    given = [{"role": "user", "content": "Other"}, {"role": "assistant", "content": "Yes?"}]
    messages = [*given, {"role": "user", "content": "Go on"}]
    await system.ended(await system.post("brief", chat_id=chat, history="given", messages=messages))
    await page.reload()
    await until_visible(page, ["First", "Brief.", "done"], ["Go on", "Brief.", "done"])
    assert "Another branch" in await page.script("return document.getElementById('messages').textContent")
    assert set(await page.script(_LABELS)) == {"Copy", "Copy answer"}
