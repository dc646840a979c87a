"""Both clients start, list and read chats."""

import asyncio

from headrace_client import AsyncClient, Client
from tests.clients.outcomes import run
from tests.fakes.answer import Answer
from tests.system import System


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def test_the_python_client_continues_and_reads_a_chat(system: System) -> None:
    system.fake.play("python-chat", Answer(deltas=["answer"]))
    async with AsyncClient(system.url) as client:
        for text in ("first", "second"):
            answer = await client.start([user(text)], model="openai/python-chat", chat_id="python/chat")
            await answer.wait(timeout_s=60)
        (listed,) = (await client.chats(limit=1))["chats"]
        assert (listed["chat_id"], listed["title"], listed["streams"]) == ("python/chat", "first", 2)

    def read() -> list[str]:
        with Client(system.url) as client:
            page = client.chat("python/chat", limit=1)
            pages = [page, client.chat("python/chat", limit=1, page=page["next_page"])]
            assert client.chats(limit=1)["chats"][0]["chat_id"] == "python/chat"
        return [turn["answer"]["text"] for page in pages for turn in page["turns"]]

    assert await asyncio.to_thread(read) == ["answer", "answer"]
    last = [call for call in system.fake.calls if call.model == "python-chat"][-1]
    contents = [message["content"] for message in last.request["messages"]]
    assert contents == ["first", "answer", "second"]


async def test_the_javascript_client_continues_and_reads_a_chat(system: System) -> None:
    outcome = await run("chat", url=system.url, model="openai/echo", chat="js/chat")
    assert outcome["listed"]["chat_id"] == "js/chat"
    assert [turn["messages"] for turn in outcome["turns"]] == [[user("first")], [user("second")]]
