"""The documented resume recipe of `useChat`, with the AI SDK's own client: ``examples/react-chat/src/resume.js``."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import pytest

from tests.conformance.bench import a_bad_network
from tests.conformance.node import Node
from tests.conformance.outcome import Ask, Outcome
from tests.fakes.answer import Answer, Turnstile
from tests.system import REPOSITORY, System

WORDS = ("Hello", ", ", "wor", "ld", ".")
TEXT = "".join(WORDS)
FOLDER = REPOSITORY / "examples" / "react-chat" / "src"
DOCUMENT = (REPOSITORY / "docs" / "compatibility.md").read_text()


@pytest.fixture(scope="session")
async def node() -> AsyncIterator[Node]:
    async with Node() as node:
        yield node


@pytest.mark.parametrize("words", ["chrome", "safari", "firefox", "node"])
async def test_an_answer_that_is_cut_twice_is_whole_in_every_browser(system: System, node: Node, words: str) -> None:
    model, turnstile, outcome, grown = f"rr-{words}", Turnstile(), Outcome(), asyncio.Event()
    system.fake.play(model, Answer(deltas=WORDS, turnstile=turnstile))
    async with a_bad_network(system) as (proxy, base):
        ask = Ask(base=base, model=f"openai/{model}", key=model, resume=True, words=words)
        running = asyncio.create_task(node.run("ai-chat", ask, outcome, grown.set))
        for count in (2, 4):
            await _until(system, lambda: bool(proxy.links))
            grown.clear()
            await turnstile.allow(count)
            await grown.wait()
            proxy.reset()
        await turnstile.allow(len(WORDS))
        await running
    assert (outcome.error, outcome.text, outcome.finish) == (None, TEXT, "stop")
    assert len([call for call in system.fake.calls if call.model == model]) == 1


async def test_an_error_of_the_server_is_shown_and_not_resumed(system: System, node: Node) -> None:
    system.fake.play("rr-error", Answer(deltas=WORDS, end="error_in_band"))
    outcome = Outcome()
    ask = Ask(base=system.url, model="openai/rr-error", key="rr-error", resume=True)
    await node.run("ai-chat", ask, outcome, lambda: None)
    assert outcome.error is not None
    assert (outcome.error["name"], outcome.text) == ("Error", TEXT)


async def test_a_message_to_an_unreachable_server_is_sent_later_and_paid_once(system: System, node: Node) -> None:
    system.fake.play("rr-later", Answer(deltas=WORDS))
    outcome = Outcome()
    async with a_bad_network(system) as (proxy, base):
        proxy.refuse = True
        ask = Ask(base=base, model="openai/rr-later", key="rr-later", resume=True)
        running = asyncio.create_task(node.run("ai-chat", ask, outcome, lambda: None))
        await _until(system, lambda: proxy.refused > 0)
        proxy.refuse = False
        await running
    assert (outcome.error, outcome.text) == (None, TEXT)
    assert len([call for call in system.fake.calls if call.model == "rr-later"]) == 1


async def test_a_resume_waits_for_a_server_that_restarts(system: System, node: Node) -> None:
    gate, outcome, grown = asyncio.Event(), Outcome(), asyncio.Event()
    system.fake.play("rr-down", Answer(deltas=WORDS, gate=gate, gate_after=3))
    async with a_bad_network(system) as (proxy, base):
        ask = Ask(base=base, model="openai/rr-down", key="rr-down", resume=True)
        running = asyncio.create_task(node.run("ai-chat", ask, outcome, grown.set))
        await grown.wait()
        proxy.refuse = True
        proxy.reset()
        await _until(system, lambda: proxy.refused > 1)
        proxy.refuse = False
        gate.set()
        await running
    assert (outcome.error, outcome.text) == (None, TEXT)


def test_the_document_quotes_the_recipe_of_the_example() -> None:
    section = DOCUMENT.split("## `useChat`")[1].split("\n## ")[0]
    recipe, page = re.findall(r"```jsx?\n(.*?)```", section, re.DOTALL)
    assert recipe == (FOLDER / "resume.js").read_text()
    chat = [line.strip() for line in (FOLDER / "Chat.jsx").read_text().splitlines()]
    quoted = [line.strip() for line in page.splitlines() if "resuming" in line or "resumption" in line]
    assert len(quoted) >= 4
    assert [line for line in quoted if line not in chat] == []


async def _until(system: System, condition: Callable[[], bool]) -> None:
    async def look() -> bool:
        return condition()

    await system.eventually(look)
