"""A provider breaks off in mid-answer, and another target goes on with the text (``on_provider_lost: continue``)."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from shared.configuration.entries import ProviderEntry
from tests.cases.dialects import DIALECTS, Clients
from tests.fakes import Answer
from tests.fakes.answer import Call, Counts, ToolCall
from tests.sse_client import Frame, error_of, text_of
from tests.system import System
from workers.jobs.continuations import repeats_prefix

NAMES = ("plain", "claude", "deep", "echoing", "vllm", "llama", "again")
CONFIGURATION = """
[providers.plain]
kind = "openai"
base_url = "{fake.openai_base_url}"
idle_timeout_s = 0.6

[providers.claude]
kind = "anthropic"
base_url = "{fake.anthropic_base_url}"
continues = "assistant_prefill"

[providers.deep]
kind = "openai"
base_url = "{fake.openai_base_url}"
continues = "prefix"

[providers.echoing]
kind = "openai"
base_url = "{fake.openai_base_url}"
continues = "prefix"
quirks = {{ repeats_prefix = true }}

[providers.vllm]
kind = "openai"
base_url = "{fake.openai_base_url}"
continues = "continue_final_message"

[providers.llama]
kind = "ollama"
base_url = "{fake.ollama_host}"
continues = "assistant_prefill"

[providers.again]
kind = "openai"
base_url = "{fake.openai_base_url}"
continues = "prefix"
continues_models = ["able-*"]
"""
BEGINNING = ("The river", " flows past", " the old")
BEGUN = "".join(BEGINNING)
REST = (" mill", " and on.")
WHOLE = BEGUN + "".join(REST)
_numbers = count(1)


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(
        tmp_path_factory.mktemp("elsewhere"),
        gateways=1,
        workers=1,
        providers=NAMES,
        configuration=CONFIGURATION,
        provider_retries=0,
        breaker_failures=1000,
        max_stream_bytes=100_000,
        lease_s=2,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.fixture(autouse=True)
async def _check(system: System) -> AsyncIterator[None]:
    yield
    assert await system.keys_without_expiry() == []


def model() -> str:
    """Return a name of a model for one test."""
    return f"m{next(_numbers)}"


def broken(*deltas: str, **options: Any) -> Answer:
    return Answer(deltas=deltas or BEGINNING, **{"end": "truncate", **options})


def rest(*deltas: str, **options: Any) -> Answer:
    return Answer(deltas=deltas or REST, **options)


async def ask(system: System, name: str, *fallbacks: str, **body: Any) -> list[Frame]:
    request = {"provider": None, "fallbacks": list(fallbacks), "on_provider_lost": "continue", **body}
    async with await system.stream(name, **request) as connection:
        return await connection.rest()


async def continued(system: System, target: str, beginning: Answer, continuation: Answer, **body: Any) -> list[Frame]:
    """Return the frames of an answer that begins at a provider and goes on at ``target``."""
    first, second = model(), model()
    system.fake.play(first, beginning)
    system.fake.play(second, continuation)
    return await ask(system, f"plain/{first}", f"{target}/{second}", **body)


def last_call(system: System) -> Call:
    return system.fake.calls[-1]


def of_kind(frames: list[Frame], kind: str) -> list[dict[str, Any]]:
    return [frame.data for frame in frames if frame.event == kind]


# --- an answer goes on


@pytest.mark.parametrize(
    "end",
    [
        {"end": "truncate"},
        {"end": "error_in_band", "error_type": "overloaded_error"},
        {"end": "hang"},
    ],
    ids=["cut", "error", "silence"],
)
async def test_another_target_goes_on_where_a_provider_broke_off(system: System, end: dict[str, Any]) -> None:
    frames = await continued(system, "claude", broken(**end), rest())
    assert text_of(frames) == WHOLE
    assert [frame.event for frame in frames].count("start") == 1
    (start,) = of_kind(frames, "start")
    (named,) = of_kind(frames, "continued")
    assert (start["provider"], named["provider"], named["model"]) == ("plain", "claude", last_call(system).model)
    assert (named["token_index"], named["characters"]) == (len(BEGINNING), len(BEGUN))
    done = frames[-1].data
    assert (frames[-1].event, done["finish_reason"]) == ("done", "stop")
    before = frames[: [frame.event for frame in frames].index("continued")]
    assert text_of(before) == BEGUN
    tokens = of_kind(frames, "token")
    assert sum(token["n"] for token in tokens) == len(BEGINNING) + len(REST)


async def test_a_connection_that_is_cut_in_mid_answer_is_continued(system: System) -> None:
    gate = asyncio.Event()
    first, second = model(), model()
    system.fake.play(first, broken(end="reset", gate=gate, gate_after=len(BEGINNING)))
    system.fake.play(second, rest())
    request: dict[str, Any] = {
        "provider": None,
        "fallbacks": [f"llama/{second}"],
        "on_provider_lost": "continue",
    }
    async with await system.stream(f"plain/{first}", **request) as connection:
        seen = ""
        while seen != BEGUN:
            seen += (await connection.next("token")).data["token"]
        gate.set()
        assert seen + text_of(await connection.rest()) == WHOLE


async def test_the_target_that_broke_off_is_tried_first(system: System) -> None:
    name = f"able-{model()}"
    system.fake.play(name, broken(), rest())
    frames = await ask(system, f"again/{name}", "claude/never")
    assert text_of(frames) == WHOLE
    assert [(each["provider"], each["model"]) for each in of_kind(frames, "continued")] == [("again", name)]


async def test_targets_that_do_not_continue_are_passed_over(system: System) -> None:
    unable, able = model(), f"able-{model()}"
    system.fake.play(unable, broken())
    system.fake.play(able, rest())
    frames = await ask(system, f"again/{unable}", f"plain/{model()}", f"again/{able}")
    assert text_of(frames) == WHOLE
    assert of_kind(frames, "continued")[0]["model"] == able


async def test_a_target_that_fails_is_followed_by_the_next(system: System) -> None:
    first, refusing, second = model(), model(), model()
    system.fake.play(first, broken())
    system.fake.play(refusing, Answer(status=400))
    system.fake.play(second, rest())
    frames = await ask(system, f"plain/{first}", f"deep/{refusing}", f"vllm/{second}")
    assert text_of(frames) == WHOLE
    assert len(of_kind(frames, "continued")) == 1


async def test_a_continuation_that_breaks_off_is_continued_three_times(system: System) -> None:
    name = f"able-{model()}"
    pieces = [broken("A long answer"), *(broken(f" with part {number}") for number in range(1, 9))]
    system.fake.play(name, *pieces)
    frames = await ask(system, f"again/{name}")
    assert text_of(frames) == "A long answer with part 1 with part 2 with part 3"
    assert error_of(frames) == ("upstream_truncated", True)
    assert len(of_kind(frames, "continued")) == 3
    assert len(frames[-1].data["usage_by_target"]) == 4


async def test_a_reader_resumes_from_any_id_over_the_seam(system: System) -> None:
    frames = [frame for frame in await continued(system, "vllm", broken(), rest()) if frame.id is not None]
    stream_id = frames[0].data["stream_id"]
    for at, frame in enumerate(frames[:-1]):
        async with await system.read(stream_id, frame.at) as connection:
            again = await connection.rest()
        assert [(each.id, each.data) for each in again] == [(each.id, each.data) for each in frames[at + 1 :]]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("targets", [("plain", "deep"), ("claude", "claude"), ("plain", "claude")])
async def test_every_dialect_gets_the_whole_text(system: System, dialect: str, targets: tuple[str, str]) -> None:
    first, second = model(), model()
    system.fake.play(first, broken(usage=(7, 2)))
    system.fake.play(second, rest(usage=(9, 3)))
    own = {"fallbacks": [f"{targets[1]}/{second}"], "on_provider_lost": "continue"}
    async with Clients.of(system) as clients:
        request = own if dialect in {"api/chat", "ag-ui"} else {"extra_body": own}
        outcome = await DIALECTS[dialect](clients, f"{targets[0]}/{first}", request)
    assert (outcome.text, outcome.error, outcome.finish) == (WHOLE, None, "stop")
    assert "on_provider_lost" not in last_call(system).request
    assert outcome.usage is not None
    assert outcome.usage[0] > 9
    assert outcome.usage[1] > 3


async def test_a_message_keeps_one_block_of_text(system: System) -> None:
    first, second = model(), model()
    system.fake.play(first, broken(usage=(7, 2)))
    system.fake.play(second, rest(usage=(9, 3)))
    body = {
        "model": f"claude/{first}",
        "fallbacks": [f"claude/{second}"],
        "on_provider_lost": "continue",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "hi"}],
    }
    message = (await system.http.post(f"{system.url}/v1/messages", json=body)).json()
    assert message["content"] == [{"type": "text", "text": WHOLE}]
    assert message["stop_reason"] == "end_turn"


async def test_a_page_of_the_ai_sdk_gets_one_part_and_the_target(system: System) -> None:
    first, second = model(), model()
    system.fake.play(first, broken())
    system.fake.play(second, rest())
    said = [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]
    body = {"id": first, "model": f"plain/{first}", "messages": said, "trigger": "submit-message"}
    own = {"fallbacks": [f"deep/{second}"], "on_provider_lost": "continue"}
    answer = await system.http.post(f"{system.url}/api/chat", json=body | own)
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert [chunk["type"] for chunk in chunks].count("text-start") == 1
    (target,) = [chunk["data"] for chunk in chunks if chunk["type"] == "data-continued"]
    assert target == {"provider": "deep", "model": second}


async def test_an_answer_can_be_cancelled_while_it_is_continued(system: System) -> None:
    first, second = model(), model()
    system.fake.play(first, broken())
    system.fake.play(second, rest(gate=asyncio.Event()))
    body: dict[str, Any] = {"provider": None, "fallbacks": [f"deep/{second}"], "on_provider_lost": "continue"}
    stream_id = await system.post(f"plain/{first}", **body)

    async def is_asked() -> bool:
        return last_call(system).model == second

    await system.eventually(is_asked)
    await system.http.post(f"{system.url}/chat/{stream_id}/cancel")
    status = await system.ended(stream_id)
    assert (status["status"], status["text"], status["usage_by_target"]) == ("cancelled", BEGUN, [])
    await last_call(system).wait_closed()


# --- the request


@pytest.mark.parametrize("target", ["claude", "deep", "vllm", "llama"])
async def test_each_target_gets_the_text_in_its_own_form(system: System, target: str) -> None:
    frames = await continued(system, target, broken(), rest(), max_tokens=1000)
    assert text_of(frames) == WHOLE
    call = last_call(system)
    given: dict[str, Any] = {"role": "assistant", "content": BEGUN}
    if target == "deep":
        given["prefix"] = True
    assert call.messages[-1] == given
    assert call.messages[-2]["role"] == "user"
    asked = {
        name: call.request[name]
        for name in ("continue_final_message", "add_generation_prompt")
        if name in call.request
    }
    assert asked == ({"continue_final_message": True, "add_generation_prompt": False} if target == "vllm" else {})
    limit = call.request["options"]["num_predict"] if target == "llama" else call.request["max_tokens"]
    assert 900 < limit < 1000


async def test_an_original_keeps_its_members(system: System) -> None:
    first, second = model(), model()
    system.fake.play(first, broken())
    system.fake.play(second, rest())
    body: dict[str, Any] = {
        "model": f"plain/{first}",
        "messages": [{"role": "user", "content": "hi"}],
        "fallbacks": [f"deep/{second}"],
        "on_provider_lost": "continue",
        "max_completion_tokens": 500,
        "logit_bias": {"7": 1},
    }
    answer = await system.http.post(f"{system.url}/v1/chat/completions", json=body)
    assert answer.json()["choices"][0]["message"]["content"] == WHOLE
    call = last_call(system)
    assert call.request["logit_bias"] == {"7": 1}
    assert "on_provider_lost" not in call.request
    assert call.messages == [*body["messages"], {"role": "assistant", "content": BEGUN, "prefix": True}]
    assert call.request["max_completion_tokens"] < 500


async def test_thinking_that_excludes_a_prefix_is_named(system: System) -> None:
    frames = await continued(system, "claude", broken(), rest(), reasoning_effort="high")
    assert text_of(frames) == WHOLE
    assert "thinking" not in last_call(system).request
    assert of_kind(frames, "continued")[0]["ignored"] == ["reasoning_effort"]


async def test_a_request_that_refuses_to_lose_a_field_passes_such_a_target_over(system: System) -> None:
    first, claude, second = model(), model(), model()
    for name, answer in ((first, broken()), (claude, rest()), (second, rest())):
        system.fake.play(name, answer)
    options = {"reasoning_effort": "high", "unsupported_fields": "refuse"}
    frames = await ask(system, f"plain/{first}", f"claude/{claude}", f"deep/{second}", **options)
    assert text_of(frames) == WHOLE
    assert of_kind(frames, "continued")[0]["provider"] == "deep"


async def test_reasoning_is_not_sent(system: System) -> None:
    frames = await continued(system, "deep", broken(reasoning=("Let me", " think")), rest())
    assert text_of(frames) == WHOLE
    assert "think" not in str(last_call(system).request)


# --- the seam


@pytest.mark.parametrize(
    ("begun", "continuation", "whole"),
    [
        ("A list of things:\n\n", ("\n\n- one",), "A list of things:\n\n- one"),
        ("A list of things:\n\n", ("\n", "\n", "- one"), "A list of things:\n\n- one"),
        ("A list of things:\n\n", ("- one",), "A list of things:\n\n- one"),
        ("A list of things:\n", ("\n\n- one",), "A list of things:\n\n- one"),
        ("A list of things: ", ("\n- one",), "A list of things: \n- one"),
        ("A list of things: ", (" ",), "A list of things: "),
        ("A list of things:", (" one",), "A list of things: one"),
    ],
)
async def test_white_space_at_the_end_is_neither_lost_nor_doubled(
    system: System, begun: str, continuation: tuple[str, ...], whole: str
) -> None:
    frames = await continued(system, "claude", broken(begun), rest(*continuation))
    assert text_of(frames) == whole
    assert last_call(system).messages[-1]["content"] == begun.rstrip()


@pytest.mark.parametrize("target", ["claude", "vllm"])
@pytest.mark.parametrize(
    "again", [(WHOLE,), ("\n\n", BEGUN, *REST), tuple(WHOLE), (BEGUN,)], ids=["whole", "space", "letters", "exactly"]
)
async def test_an_answer_that_begins_anew_is_an_error(system: System, target: str, again: tuple[str, ...]) -> None:
    frames = await continued(system, target, broken(), rest(*again))
    assert text_of(frames) == BEGUN
    assert error_of(frames) == ("provider_started_over", True)
    assert of_kind(frames, "continued") == []


async def test_only_the_first_40_characters_decide(system: System) -> None:
    begun = "x" * 39 + "yz and so on"
    frames = await continued(system, "deep", broken(begun), rest("x" * 39 + "y" + " again"))
    assert error_of(frames) == ("provider_started_over", True)
    frames = await continued(system, "deep", broken(begun), rest("x" * 39, "z is another word"))
    assert text_of(frames) == begun + "x" * 39 + "z is another word"


async def test_after_an_answer_that_begins_anew_the_next_target_is_tried(system: System) -> None:
    first, anew, second = model(), model(), model()
    for name, answer in ((first, broken()), (anew, rest(WHOLE, reasoning=("secret",))), (second, rest())):
        system.fake.play(name, answer)
    frames = await ask(system, f"plain/{first}", f"vllm/{anew}", f"deep/{second}")
    assert text_of(frames) == WHOLE
    assert of_kind(frames, "reasoning") == []
    assert [each["provider"] for each in of_kind(frames, "continued")] == ["deep"]


async def test_a_server_that_repeats_the_text_goes_on_behind_it(system: System) -> None:
    frames = await continued(system, "echoing", broken(), rest(BEGUN[:5], BEGUN[5:] + " mi", "ll and on."))
    assert text_of(frames) == WHOLE
    frames = await continued(system, "echoing", broken(), rest("The river runs"))
    assert error_of(frames) == ("provider_started_over", True)


async def test_output_that_is_held_back_is_limited(system: System) -> None:
    thoughts = ["x" * 1000] * 200
    frames = await continued(system, "deep", broken(), rest("never", reasoning=thoughts))
    done = frames[-1].data
    assert (text_of(frames), done["finish_reason"], done["reason"]) == (BEGUN, "length", "max_stream_bytes")


async def test_characters_of_any_kind_are_counted_as_code_points(system: System) -> None:
    begun = "Wörter und 🎈🎈"
    frames = await continued(system, "claude", broken(begun), rest("🎈", " fliegen"))
    assert text_of(frames) == begun + "🎈 fliegen"
    assert of_kind(frames, "continued")[0]["characters"] == len(begun)
    assert last_call(system).messages[-1]["content"] == begun


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"base_url": "https://api.mistral.ai/v1"}, True),
        ({"base_url": "https://api.mistral.ai/v1", "quirks": {"repeats_prefix": False}}, False),
        ({"base_url": "https://api.deepseek.com/beta"}, False),
        ({"base_url": "https://proxy.test/v1", "quirks": {"repeats_prefix": True}}, True),
    ],
)
def test_the_server_that_repeats_the_text_is_recognised(table: dict[str, Any], expected: bool) -> None:
    entry = ProviderEntry.model_validate({"kind": "openai", "continues": "prefix", **table})
    assert repeats_prefix(entry) is expected


async def test_a_continuation_may_call_a_tool(system: System) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    frames = await continued(system, "deep", broken(), rest(tools=(ToolCall("c1", "look"),)), tools=tools)
    assert text_of(frames) == WHOLE
    assert frames[-1].data["finish_reason"] == "tool_calls"


async def test_a_continuation_without_output_ends_the_answer(system: System) -> None:
    frames = await continued(system, "deep", broken(), Answer(deltas=()))
    assert text_of(frames) == BEGUN
    assert frames[-1].data["finish_reason"] == "stop"
    assert len(of_kind(frames, "continued")) == 1


# --- usage


async def test_usage_is_the_sum_over_the_calls(system: System) -> None:
    beginning = broken(usage=Counts(11, 3))
    first, second = model(), model()
    system.fake.play(first, beginning)
    system.fake.play(second, rest(usage=Counts(20, 5, cached=8)))
    frames = await ask(system, f"claude/{first}", f"deep/{second}")
    done = frames[-1].data
    parts = done["usage_by_target"]
    assert [(part["provider"], part["model"]) for part in parts] == [("claude", first), ("deep", second)]
    assert parts[0]["usage"]["input_tokens"] == 11  # reported before its output
    assert parts[0]["usage"]["estimated"]
    assert parts[0]["usage"]["output_tokens"] == len(BEGUN) // 4
    assert parts[1]["usage"] == {"input_tokens": 20, "output_tokens": 5, "estimated": False, "cached_tokens": 8}
    total = {"input_tokens": 31, "output_tokens": parts[0]["usage"]["output_tokens"] + 5}
    assert done["usage"] == total | {"estimated": True, "cached_tokens": 8}
    stream_id = of_kind(frames, "start")[0]["stream_id"]
    status = await system.status(stream_id)
    assert (status["usage"], status["usage_by_target"]) == (done["usage"], parts)
    assert status["text"] == WHOLE

    async def logged() -> list[dict[str, Any]]:
        lines = [line for line in system.workers[0].log.read_text().splitlines() if stream_id in line]
        logs = [json.loads(line) for line in lines]
        return logs if logs[-1]["event"] == "stream ended" else []

    logs = await system.eventually(logged)
    (line,) = [line for line in logs if line["event"] == "answer continued"]
    assert (line["broken_off"], line["target"]) == (f"claude/{first}", f"deep/{second}")
    assert (logs[-1]["provider"], logs[-1]["input_tokens"]) == ("deep", 31)
    assert "river" not in str(logs)


async def test_each_call_that_broke_off_has_its_own_usage(system: System) -> None:
    first, second = model(), model()
    later = broken(" mill that was", usage=Counts(17, 9)), Answer(status=400)
    system.fake.play(first, broken(usage=Counts(11, 3)), *later)
    system.fake.play(second, rest(" closed.", usage=None))
    frames = await ask(system, f"claude/{first}", f"deep/{second}")
    parts = [part["usage"] for part in frames[-1].data["usage_by_target"]]
    assert text_of(frames) == BEGUN + " mill that was closed."
    assert [part["input_tokens"] for part in parts[:2]] == [11, 17]
    assert [part["output_tokens"] for part in parts] == [7, 4, 2]
    assert parts[2]["input_tokens"] == 11  # estimated from 2 and 42 characters


async def test_an_answer_of_one_call_has_no_parts(system: System) -> None:
    name = model()
    system.fake.play(name, rest())
    frames = await ask(system, f"deep/{name}")
    assert "usage_by_target" not in frames[-1].data
    stream_id = frames[-2].id and of_kind(frames, "start")[0]["stream_id"]
    assert (await system.status(str(stream_id)))["usage_by_target"] == []


# --- an answer ends as without the field

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
JSON = {"type": "json_object"}


@pytest.mark.parametrize(
    ("beginning", "options"),
    [
        (broken(tools=(ToolCall("c1", "look", ('{"a":', "1}")),)), {"tools": TOOLS}),
        (broken('{"a": "a long text'), {"response_format": JSON}),
        (broken(), {"tools": TOOLS, "tool_choice": "required"}),
        (broken('{"a": "a long text'), {"provider_options": {"openai": {"guided_json": {"type": "object"}}}}),
        (broken(refusal=("I cannot",)), {}),
        (broken("Short"), {}),
        (broken("   \n\n        "), {}),
        (Answer(deltas=(), reasoning=("Let me think about",), end="truncate"), {}),
        (broken(), {"on_provider_lost": "fail"}),
        (broken(), {"on_provider_lost": None}),
        (broken(), {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well"}]}),
        (broken(end="error_in_band", error_type="invalid_request_error"), {}),
    ],
    ids=[
        "tool",
        "json",
        "forced",
        "grammar",
        "refusal",
        "short",
        "blank",
        "reasoning",
        "fail",
        "default",
        "prefilled",
        "rejected",
    ],
)
async def test_an_answer_that_cannot_be_continued_ends_with_the_error(
    system: System, beginning: Answer, options: dict[str, Any]
) -> None:
    calls = len(system.fake.calls)
    frames = await continued(system, "deep", beginning, rest(), **options)
    assert error_of(frames)[0] in {"upstream_truncated", "provider_rejected"}
    assert text_of(frames) == "".join(beginning.deltas)  # type: ignore[arg-type]
    assert of_kind(frames, "continued") == []
    assert len(system.fake.calls) == calls + 1


async def test_without_a_target_that_continues_the_field_is_named(system: System) -> None:
    first, second = model(), model()
    system.fake.play(first, broken())
    frames = await ask(system, f"plain/{first}", f"again/{second}")
    assert of_kind(frames, "start")[0]["ignored"] == ["on_provider_lost"]
    assert error_of(frames) == ("upstream_truncated", True)
    frames = await ask(system, f"plain/{first}", unsupported_fields="refuse")
    assert error_of(frames) == ("unsupported_field", False)


async def test_if_no_target_answers_the_stream_ends_with_the_first_error(system: System) -> None:
    frames = await continued(system, "deep", broken(), Answer(status=400))
    assert text_of(frames) == BEGUN
    assert error_of(frames) == ("upstream_truncated", True)


async def test_a_continued_answer_outlives_its_worker(system: System) -> None:
    """The estimate of its usage counts the prompt of each call."""
    name = f"able-{model()}"
    system.fake.play(name, broken(), rest(gate=asyncio.Event(), gate_after=1))
    body: dict[str, Any] = {"provider": None, "on_provider_lost": "continue", "on_worker_lost": "fail"}
    async with await system.stream(f"again/{name}", **body) as connection:
        await connection.next("continued")
        await connection.next("token")
        (worker,) = system.workers
        worker.stop()
        worker.start()
        frames = await connection.rest()
    assert error_of(frames) == ("worker_lost", False)
    status: dict[str, Any] = await system.status(connection.stream_id)
    assert (status["status"], status["text"]) == ("failed", BEGUN + REST[0])
    assert status["usage"]["input_tokens"] == 1 + 8  # from 2 and 30 characters
