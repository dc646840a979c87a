"""Chats: requests with a ``chat_id`` and only the new messages."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest

from shared.broker.chats import ChatName, join_chat
from shared.broker.client import connect
from shared.broker.keys import state_key
from shared.broker.scripts import StreamScripts
from shared.protocol.ids import new_stream_id
from shared.rate_limits import account_of
from shared.settings import Settings
from tests.conftest import StartSystem
from tests.fakes.answer import Answer, ToolCall
from tests.responses import code_of
from tests.system import System

Message = dict[str, Any]
INSTRUCTIONS = {"role": "system", "content": "Be brief."}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


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


async def running(system: System, chat_id: str, *messages: Message, model: str, text: Sequence[str]) -> str:
    """Start a turn that goes on after ``text``, and return its id when that is in the answer."""
    system.fake.play(model, Answer(deltas=[*text, "never"], gate=asyncio.Event(), gate_after=len(text)))
    stream_id: str = (await post(system, chat_id, *messages, model=model)).json()["stream_id"]

    async def has_text() -> bool:
        return (await system.status(stream_id))["text"] == "".join(text)

    await system.eventually(has_text)
    return stream_id


async def cancelled(system: System, stream_id: str) -> None:
    assert (await system.http.post(f"{system.url}/chat/{stream_id}/cancel")).status_code == 202
    await system.ended(stream_id)


async def test_each_turn_gets_the_conversation_before_it(system: System) -> None:
    system.fake.play("turns", Answer(deltas=["one ", "answer"]))
    first = await say(system, "turns", INSTRUCTIONS, user("first"), model="turns")
    assert first["history"] is None
    second = await say(system, "turns", user("second"), model="turns", gateway=1)
    assert second["history"] == "added"
    whole = [INSTRUCTIONS, user("first"), assistant("one answer"), user("second")]
    assert seen(system, "turns") == whole
    # A system message of a later turn replaces the first one.
    await say(system, "turns", {"role": "system", "content": "Be long."}, user("third"), model="turns")
    long = {"role": "system", "content": "Be long."}
    assert seen(system, "turns") == [long, *whole[1:], assistant("one answer"), user("third")]
    assert (await system.status(second["stream_id"]))["chat_id"] == "turns"


async def test_another_providers_model_goes_on(system: System) -> None:
    await say(system, "elsewhere", INSTRUCTIONS, user("first"))
    await say(system, "elsewhere", user("second"), provider="anthropic", model="claude-elsewhere")
    assert [message["role"] for message in seen(system, "claude-elsewhere")] == ["user", "assistant", "user"]


async def test_tool_results_are_new_messages(system: System) -> None:
    system.fake.play("asks-tool", Answer(tools=[ToolCall("call_7", "weather", ('{"city": "Basel"}',))]))
    await say(system, "tool", user("Coat?"), model="asks-tool", tools=[WEATHER])
    result = {"role": "tool", "tool_call_id": "call_7", "content": "rain"}
    system.fake.play("gets-result", Answer(deltas=["Yes."]))
    await say(system, "tool", result, model="gets-result", tools=[WEATHER])
    asked, call, answered = seen(system, "gets-result")
    assert (asked, answered) == (user("Coat?"), result)
    assert (call["role"], call["tool_calls"][0]["id"]) == ("assistant", "call_7")
    await say(system, "tool", user("Thanks."), model="gets-result", tools=[WEATHER])
    assert seen(system, "gets-result")[2:] == [result, assistant("Yes."), user("Thanks.")]


async def test_messages_with_the_whole_conversation_are_not_added_twice(system: System) -> None:
    system.fake.play("whole", Answer(deltas=["answer"]))
    await say(system, "whole", INSTRUCTIONS, user("first"), model="whole")
    whole = [user("first"), assistant("answer"), user("second")]
    # The client's own system message may differ from turn to turn.
    dated = {"role": "system", "content": "Today is Monday."}
    assert (await say(system, "whole", dated, *whole, model="whole"))["history"] == "given"
    assert seen(system, "whole") == [dated, *whole]
    # An answer of another text may be a changed history, or a new message: the client has to say which.
    changed = [user("first"), assistant("another answer"), user("third")]
    refused = await post(system, "whole", *changed, model="whole")
    assert code_of(refused) == (422, "invalid_request")
    assert "history: given" in refused.json()["error"]["message"]
    assert (await say(system, "whole", *changed, model="whole", history="given"))["history"] == "given"
    assert seen(system, "whole") == changed
    # The given messages are the chat's conversation now.
    await say(system, "whole", user("fourth"), model="whole", history="add")
    assert seen(system, "whole") == [*changed, assistant("answer"), user("fourth")]
    await say(system, "whole", assistant("I forgot:"), user("fifth"), model="whole", history="add")
    assert seen(system, "whole")[-2:] == [assistant("I forgot:"), user("fifth")]


async def test_a_cancelled_answer_stays_as_far_as_it_came(system: System) -> None:
    stream_id = await running(system, "partly", user("first"), model="partly", text=["some ", "words"])
    await cancelled(system, stream_id)
    await say(system, "partly", user("second"), model="after-partly")
    assert seen(system, "after-partly") == [user("first"), assistant("some words"), user("second")]


async def test_a_question_whose_answer_was_cancelled_stays(system: System) -> None:
    """Unless it is asked again."""
    stream_id = await running(system, "unanswered", user("first"), model="unanswered", text=[])
    await cancelled(system, stream_id)
    await cancelled(system, await running(system, "unanswered", user("first"), model="unanswered", text=[]))
    assert seen(system, "unanswered") == [user("first")]
    await say(system, "unanswered", user("second"), model="after-unanswered")
    assert seen(system, "after-unanswered") == [user("first"), user("second")]


async def test_a_turn_that_failed_without_output_is_left_out(system: System) -> None:
    system.fake.play("fine", Answer(deltas=["fine"]))
    await say(system, "failing", INSTRUCTIONS, user("first"), model="fine")
    system.fake.play("rejects-it", Answer(status=400, error_body={"error": {"message": "no", "type": "x"}}))
    failed = await say(system, "failing", user("poison"), model="rejects-it")
    assert (await system.status(failed["stream_id"]))["status"] == "failed"
    await say(system, "failing", user("second"), model="fine")
    assert [message["role"] for message in seen(system, "fine")] == ["system", "user", "assistant", "user"]
    assert "poison" not in str(seen(system, "fine"))
    system.fake.play("breaks-off", Answer(deltas=["half ", "an answer"], end="error_in_band"))
    await say(system, "failing", user("third"), model="breaks-off")
    await say(system, "failing", user("fourth"), model="fine")
    assert seen(system, "fine")[-3:] == [user("third"), assistant("half an answer"), user("fourth")]


async def test_a_chat_is_busy_while_its_last_turn_runs(system: System) -> None:
    stream_id = await running(system, "busy", user("first"), model="busy", text=["word"])
    refused = await post(system, "busy", user("second"), gateway=1)
    assert code_of(refused) == (409, "chat_busy")
    error = refused.json()["error"]
    assert (error["stream_id"], error["retryable"]) == (stream_id, True)
    async with system.http.stream("GET", system.url + error["stream_url"]) as reader:
        assert reader.status_code == 200
    given = await say(system, "busy", user("first"), assistant("given"), user("second"), history="given")
    turns = (await system.http.get(f"{system.url}/chats/busy")).json()["turns"]
    assert [(turn["history"], turn["messages"]) for turn in turns] == [
        (None, [user("first")]),
        ("given", [user("second")]),
    ]
    await say(system, "busy", user("third"), model="after-busy")
    assert seen(system, "after-busy")[:3] == [user("first"), assistant("given"), user("second")]
    assert given["history"] == "given"
    await cancelled(system, stream_id)


async def test_requests_at_once_follow_each_other_or_are_refused(system: System) -> None:
    """Whichever gateway gets them: no turn is lost, and none is answered twice."""
    system.fake.play("racing", Answer(deltas=["done"]))
    accepted = []
    for turn in range(6):
        texts = [f"{turn}-{n}" for n in range(4)]
        answers = await asyncio.gather(
            *(post(system, "racing", user(text), model="racing", gateway=n % 2) for n, text in enumerate(texts))
        )
        won = [answer.json()["stream_id"] for answer in answers if answer.status_code == 202]
        assert {code_of(answer) for answer in answers if answer.status_code != 202} <= {(409, "chat_busy")}
        assert won
        for stream_id in won:
            await system.ended(stream_id)
        accepted += won
    turns = (await system.http.get(f"{system.url}/chats/racing", params={"limit": 100})).json()["turns"]
    assert sorted(turn["stream_id"] for turn in turns) == sorted(accepted)
    calls = [call.request["messages"] for call in system.fake.calls if call.model == "racing"]
    texts = [turn["messages"][0]["content"] for turn in turns]
    assert sorted(map(len, calls)) == [2 * n + 1 for n in range(len(turns))]
    assert [message["content"] for message in max(calls, key=len)[::2]] == texts


async def test_while_an_answer_runs_no_request_of_its_chat_is_accepted(system: System) -> None:
    stream_id = await running(system, "guarded", user("first"), model="guarded", text=["word"])
    answers = await asyncio.gather(*(post(system, "guarded", user("next"), gateway=n % 2) for n in range(4)))
    assert {code_of(answer) for answer in answers} == {(409, "chat_busy")}
    await cancelled(system, stream_id)


async def test_repeats_with_a_key_are_one_turn(system: System) -> None:
    """The history does not change what the key belongs to."""
    system.fake.play("repeated", Answer(deltas=["once"]))
    await say(system, "repeated", user("first"), model="repeated")
    headers = {"Idempotency-Key": "repeated-1"}
    options: dict[str, Any] = {"model": "repeated", "headers": headers}
    answers = await asyncio.gather(
        *(post(system, "repeated", user("second"), gateway=n % 2, **options) for n in range(4))
    )
    assert {answer.status_code for answer in answers} == {202}
    (stream_id,) = {answer.json()["stream_id"] for answer in answers}
    await system.ended(stream_id)
    await say(system, "repeated", user("third"), model="repeated")
    again = (await post(system, "repeated", user("second"), **options)).json()
    assert (again["stream_id"], again["history"]) == (stream_id, "added")
    refused = await post(system, "repeated", user("other"), **options)
    assert code_of(refused) == (409, "idempotency_conflict")
    chat = (await system.http.get(f"{system.url}/chats/repeated")).json()
    assert [turn["messages"] for turn in chat["turns"]] == [[user(text)] for text in ("first", "second", "third")]


async def test_an_answer_whose_worker_was_lost_is_waited_for(start_system: StartSystem) -> None:
    system = await start_system(workers=2, lease_s=1)
    gate = asyncio.Event()
    system.fake.play("lost", Answer(deltas=["all ", "of it"], gate=gate, gate_after=1))
    stream_id = (await post(system, "lost", user("first"), model="lost")).json()["stream_id"]
    await system.eventually(lambda: system.field(stream_id, "holder"))
    holder = await system.field(stream_id, "holder")
    for worker in system.workers:
        if holder and f'"{holder.split(".")[0]}"' in worker.log.read_text():
            worker.stop()
    assert code_of(await post(system, "lost", user("second"))) == (409, "chat_busy")
    gate.set()
    await system.ended(stream_id, timeout_s=40)
    await say(system, "lost", user("second"), model="after-lost")
    assert seen(system, "after-lost") == [user("first"), assistant("all of it"), user("second")]


async def test_the_turn_of_a_gateway_that_was_lost_does_not_block_the_chat(system: System) -> None:
    """It had joined the chat, and died before or after it created the stream."""
    system.fake.play("orphan", Answer(deltas=["found"]))
    await say(system, "orphan", user("first"), model="orphan")
    name, scripts = ChatName(account_of("anonymous"), "orphan"), StreamScripts(Settings.model_construct())
    async with connect(system.broker.url) as client:
        latest = (await client.hget(name.keys[0], "stream")).decode()  # type: ignore[misc]
        never_created = new_stream_id()
        await join_chat(client, scripts, name, never_created, latest)
        assert code_of(await post(system, "orphan", user("waits"))) == (409, "chat_busy")
        await client.hset(name.keys[0], "pending_until", "1")  # type: ignore[misc]
        second = await say(system, "orphan", user("second"), model="orphan")
        created = {"pending": second["stream_id"], "pending_until": 2**45}
        await client.hset(name.keys[0], mapping=created)  # type: ignore[misc]
    await say(system, "orphan", user("third"), model="orphan")
    assert [message["content"] for message in seen(system, "orphan")[::2]] == ["first", "second", "third"]


async def test_a_chat_whose_messages_are_gone_is_not_answered_without_them(system: System) -> None:
    first = await say(system, "gone", user("first"))
    assert (await system.http.delete(f"{system.url}/chat/{first['stream_id']}")).status_code == 204
    refused = await post(system, "gone", user("second"))
    assert code_of(refused) == (410, "chat_gone")
    assert "history: given" in refused.json()["error"]["message"]
    assert code_of(await system.http.get(f"{system.url}/chats/gone")) == (410, "chat_gone")
    assert (await say(system, "gone", user("first"), assistant("a"), user("second"), history="given"))["history"]
    unknown = await post(system, "never-there", user("second"), history="add")
    assert code_of(unknown) == (404, "chat_not_found")


async def test_a_conversation_has_a_largest_size(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, max_conversation_bytes=4096)
    system.fake.play("short", Answer(deltas=["ok"]))
    await say(system, "large", user("x" * 2500), model="short")
    refused = await post(system, "large", user("y" * 2500))
    assert code_of(refused) == (422, "invalid_request")
    assert "the limit is 4096" in refused.json()["error"]["message"]
    await say(system, "large", user("short"), model="short")


async def test_the_answer_that_a_turn_is_made_from_is_not_dropped(system: System) -> None:
    first = await say(system, "source", user("first"))
    second = await running(system, "source", user("second"), model="source", text=["word"])
    assert await system.field(second, "sources") == first["stream_id"]
    await cancelled(system, second)


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
    assert (await say(system, "listed/ä", user("new")))["history"] is None


async def test_a_running_turn_is_read_and_deleted_with_its_chat(system: System) -> None:
    stream_id = await running(system, "deleted", user("first"), model="deleted", text=["word"])
    (turn,) = (await system.http.get(f"{system.url}/chats/deleted")).json()["turns"]
    assert (turn["status"], turn["answer"]["text"]) == ("running", "word")
    url, cursor = system.url + turn["stream_url"], turn["answer"]["last_event_id"]
    assert cursor is not None
    async with system.http.stream("GET", url, headers={"Last-Event-ID": cursor}) as reader:
        assert reader.status_code == 200
    assert (await system.http.delete(f"{system.url}/chats/deleted")).status_code == 204
    call = [call for call in system.fake.calls if call.model == "deleted"][-1]
    await call.wait_closed()
    async with system.broker.client() as client:
        assert not await client.exists(state_key(stream_id))


async def test_large_requests_make_a_page_shorter(system: System) -> None:
    system.fake.play("heavy", Answer(deltas=["ok"]))
    text = "x" * 900_000
    said = [await say(system, "heavy", user(text), model="heavy", history="given") for _ in range(5)]
    url, page = f"{system.url}/chats/heavy", None
    turns: list[dict[str, Any]] = []
    pages: list[int] = []
    while page is not None or not pages:
        found = (await system.http.get(url, params={"page": page} if page else {})).json()
        turns, page = [*turns, *found["turns"]], found["next_page"]
        pages.append(len(found["turns"]))
    assert pages == [4, 1]
    assert [turn["stream_id"] for turn in turns] == [accepted["stream_id"] for accepted in said]
    assert all(turn["messages"] == [user(text)] for turn in turns)


async def test_chats_of_the_ai_sdk_are_listed(system: System) -> None:
    message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hi from the SDK"}]}
    body = {"id": "ai-sdk-chat", "model": "openai/echo", "messages": [message]}
    assert (await system.http.post(f"{system.url}/api/chat", json=body)).status_code == 200
    (chat,) = (await system.http.get(f"{system.url}/chats", params={"limit": 1})).json()["chats"]
    assert (chat["chat_id"], chat["title"]) == ("ai-sdk-chat", "Hi from the SDK")
    (turn,) = (await system.http.get(f"{system.url}/chats/ai-sdk-chat")).json()["turns"]
    assert turn["messages"] is None  # its client has them
    assert turn["answer"]["text"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"chat_id": ""}, "chat_id: "),
        ({"chat_id": "x" * 129}, "chat_id: "),
        ({"history": "add"}, "history: there is no chat; add chat_id or remove history"),
        ({"chat_id": "x", "history": "all"}, "history: "),
    ],
)
async def test_invalid_fields_are_named(system: System, body: dict[str, Any], problem: str) -> None:
    request = {"model": "openai/echo", "messages": [user("hi")], **body}
    refused = await system.http.post(f"{system.url}/chat", json=request)
    assert code_of(refused) == (422, "invalid_request")
    assert refused.json()["error"]["message"].startswith(problem)
