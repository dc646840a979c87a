"""Chats: requests with a ``chat_id`` and only the new messages."""

import asyncio
from typing import Any

import httpx2

from tests.fakes.answer import Answer, ToolCall
from tests.responses import code_of
from tests.system import System

Message = dict[str, Any]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


async def post(
    system: System,
    chat_id: str,
    *messages: Message,
    model: str = "echo",
    gateway: int = 0,
    headers: dict[str, str] | None = None,
    **body: object,
) -> httpx2.Response:
    request = {"provider": "openai", "model": model, "chat_id": chat_id, "messages": messages, **body}
    return await system.http.post(f"{system.gateways[gateway].url}/chat", json=request, headers=headers)


async def say(system: System, chat_id: str, *messages: Message, **options: Any) -> dict[str, Any]:
    """Add a turn, wait for its end, and return the response to its request."""
    answer = await post(system, chat_id, *messages, **options)
    assert answer.status_code == 202, answer.text
    accepted: dict[str, Any] = answer.json()
    assert accepted["chat_id"] == chat_id
    await system.ended(accepted["stream_id"])
    return accepted


def seen(system: System, model: str) -> list[Message]:
    """Return the messages of the last call of a model."""
    messages: list[Message] = [call for call in system.fake.calls if call.model == model][-1].request["messages"]
    return messages


async def test_each_turn_gets_the_conversation_before_it(system: System) -> None:
    system.fake.play("turns", Answer(deltas=["one ", "answer"]))
    first = await say(system, "turns", {"role": "system", "content": "Be brief."}, user("first"), model="turns")
    assert first["history"] is None
    second = await say(system, "turns", user("second"), model="turns", gateway=1)
    assert second["history"] == "added"
    whole = [{"role": "system", "content": "Be brief."}, user("first"), assistant("one answer"), user("second")]
    assert seen(system, "turns") == whole
    # A system message of a later turn replaces the first one.
    await say(system, "turns", {"role": "system", "content": "Be long."}, user("third"), model="turns")
    assert seen(system, "turns") == [
        {"role": "system", "content": "Be long."},
        *whole[1:],
        assistant("one answer"),
        user("third"),
    ]


async def test_chats_are_listed_read_and_deleted(system: System) -> None:
    first = await say(system, "listed/ä", user("What is   up?\n" + "x" * 100))
    second = await say(system, "listed/ä", user("And now?"))
    chats = (await system.http.get(f"{system.url}/chats", params={"limit": 1})).json()
    assert chats["next_page"] is not None
    (chat,) = chats["chats"]
    assert chat.pop("created_at") < chat.pop("updated_at")
    assert chat == {
        "chat_id": "listed/ä",
        "title": f"What is up? {'x' * 67}…",
        "streams": 2,
        "last_stream_id": second["stream_id"],
        "status": "completed",
        "provider": "openai",
        "model": "echo",
    }
    url = f"{system.gateways[1].url}/chats/listed%2F%C3%A4"
    page = (await system.http.get(url, params={"limit": 1})).json()
    assert [turn["stream_id"] for turn in page["turns"]] == [first["stream_id"]]
    page = (await system.http.get(url, params={"limit": 1, "page": page["next_page"]})).json()
    assert page["next_page"] is None
    (turn,) = page["turns"]
    assert turn["messages"] == [user("And now?")]
    assert turn["answer"] == await system.status(second["stream_id"])
    assert "event: done" in (await system.http.get(system.url + turn["stream_url"])).text
    assert (await system.http.delete(url)).status_code == 204
    for stream in (first, second):
        assert code_of(await system.http.get(f"{system.url}/chat/{stream['stream_id']}")) == (410, "stream_gone")
    assert code_of(await system.http.get(url)) == (404, "chat_not_found")
    assert code_of(await system.http.delete(url)) == (404, "chat_not_found")
