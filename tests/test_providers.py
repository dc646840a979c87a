"""Each adapter, through its real SDK, against a server that speaks the provider's own wire format."""

import asyncio
import itertools
import time
from contextlib import aclosing
from typing import Any

import pytest

from shared.errors import ProviderError
from shared.protocol.events import Usage
from tests.asking import KEY, PROMPT, Make, ask, collect, failure, network, settings_for, text_in
from tests.fakes import Answer, FakeProvider
from tests.raw_server import answering
from workers.providers import http_calls
from workers.providers.anthropic_request import DEFAULT_MAX_TOKENS
from workers.providers.base import Delta, Finished, ModelList, ReasoningDelta, TextDelta
from workers.providers.demo import STORY, DemoProvider, demo_text
from workers.providers.errors import Upstream, host_of, provider_error
from workers.providers.registry import configured_providers

TEXT = ["Zwölf ", "Boxkämpfer 🥊", "\n", "jagen\r\n\n", "Viktor\u2028", ' "quer" \\ ', "data: x\n\n"]

# --- what a whole answer becomes


@network
async def test_an_answer_becomes_deltas_and_one_finished_with_usage(
    fake: FakeProvider, make: Make, name: str
) -> None:
    fake.play("m", Answer(deltas=TEXT, usage=(5, 7)))
    assert await collect(make(name), ask("m")) == [
        *(TextDelta(text) for text in TEXT),
        Finished("stop", Usage(input_tokens=5, output_tokens=7)),
    ]
    (call,) = fake.calls
    assert (call.provider, call.model, call.prompt) == (name, "m", PROMPT)
    assert call.request["stream"] is True
    await call.wait_closed()
    assert (call.finished, call.closed_by_client, call.sent_deltas) == (True, False, len(TEXT))


@network
async def test_usage_is_none_where_the_provider_does_not_say(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(deltas=["hi"], usage=None))
    assert await collect(make(name), ask("m")) == [TextDelta("hi"), Finished("stop", None)]


@network
async def test_thinking_comes_as_reasoning(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(reasoning=["Hm", "…"], deltas=["Yes"], usage=None))
    assert await collect(make(name), ask("m")) == [
        ReasoningDelta("Hm"),
        ReasoningDelta("…"),
        TextDelta("Yes"),
        Finished("stop", None),
    ]


@pytest.mark.parametrize(
    ("name", "said", "meant"),
    [
        ("openai", "stop", "stop"),
        ("openai", "length", "length"),
        ("openai", "tool_calls", "tool_calls"),
        ("openai", "function_call", "tool_calls"),
        ("openai", "content_filter", "content_filter"),
        ("openai", "eos", "stop"),
        ("anthropic", "end_turn", "stop"),
        ("anthropic", "stop_sequence", "stop"),
        ("anthropic", "max_tokens", "length"),
        ("anthropic", "model_context_window_exceeded", "length"),
        ("anthropic", "tool_use", "tool_calls"),
        ("anthropic", "refusal", "content_filter"),
        ("anthropic", "pause_turn", "stop"),
        ("ollama", "stop", "stop"),
        ("ollama", "length", "length"),
        ("ollama", "load", "stop"),
    ],
)
async def test_finish_reasons(fake: FakeProvider, make: Make, name: str, said: str, meant: str) -> None:
    fake.play("m", Answer(finish_reason=said))
    finished = (await collect(make(name), ask("m")))[-1]
    assert isinstance(finished, Finished)
    assert finished.reason == meant


@network
async def test_several_calls_share_one_connection(fake: FakeProvider, make: Make, name: str) -> None:
    provider = make(name)
    for n in range(5):
        assert text_in(await collect(provider, ask("echo", f"this is {n}"))) == f"this is {n}"
    assert fake.open_connections == 1


@network
async def test_more_streams_at_once_than_the_sdks_own_pools_allow(fake: FakeProvider, make: Make, name: str) -> None:
    gate = asyncio.Event()
    fake.play("m", Answer(deltas=lambda number: [f"call {number}"], gate=gate))
    provider = make(name, concurrency=130)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(collect(provider, ask("m"))) for _ in range(130)]
        await fake.wait_calls(130)
        gate.set()
    assert len({text_in(task.result()) for task in tasks}) == 130


# --- what goes out

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Bye"},
]
PARAMETERS: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 9, "stop": ["X", "Y"]}
PENALTIES: dict[str, Any] = {"frequency_penalty": 0.5, "presence_penalty": -0.5}


async def test_what_openai_is_asked(fake: FakeProvider, make: Make) -> None:
    await collect(make("openai"), ask("echo", messages=CONVERSATION, **PARAMETERS, **PENALTIES))
    (call,) = fake.calls
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.request == {
        "model": "echo",
        "messages": CONVERSATION,
        "stream": True,
        "stream_options": {"include_usage": True},
        **PARAMETERS,
        **PENALTIES,
    }


async def test_what_anthropic_is_asked(fake: FakeProvider, make: Make) -> None:
    await collect(make("anthropic"), ask("echo", messages=CONVERSATION, **PARAMETERS))
    (call,) = fake.calls
    assert KEY in {call.headers.get("x-api-key"), call.headers.get("authorization", "").removeprefix("Bearer ")}
    assert call.request == {
        "model": "echo",
        "system": "Be brief.\n\nBe kind.",
        "messages": [m for m in CONVERSATION if m["role"] != "system"],
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 9,
        "stop_sequences": ["X", "Y"],
    }


async def test_what_ollama_is_asked(fake: FakeProvider, make: Make) -> None:
    await collect(make("ollama"), ask("echo", messages=CONVERSATION, **PARAMETERS, **PENALTIES))
    asked = fake.calls[0].request
    assert asked["messages"] == CONVERSATION
    assert asked["options"] == {"temperature": 0.5, "top_p": 0.9, "num_predict": 9, "stop": ["X", "Y"], **PENALTIES}


async def test_one_call_at_most(fake: FakeProvider, make: Make) -> None:
    tool = {"type": "function", "function": {"name": "one"}}
    for name in ("openai", "anthropic"):
        await collect(make(name), ask("echo", tools=[tool], parallel_tool_calls=False))
    openai, anthropic = fake.calls
    assert openai.request["parallel_tool_calls"] is False
    assert anthropic.request["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("anthropic", PENALTIES),
        ("ollama", {"parallel_tool_calls": False, "tools": [{"type": "function", "function": {"name": "one"}}]}),
    ],
)
async def test_what_a_provider_cannot_do_it_refuses(make: Make, name: str, asked: dict[str, Any]) -> None:
    with pytest.raises(ProviderError, match=name):
        await collect(make(name), ask("echo", **asked))


async def test_nothing_is_asked_that_the_client_did_not_ask(fake: FakeProvider, make: Make) -> None:
    for name in ("openai", "anthropic", "ollama"):
        await collect(make(name), ask("echo"))
    messages = [{"role": "user", "content": PROMPT}]
    common = {"model": "echo", "messages": messages, "stream": True}
    openai, anthropic, ollama = (call.request for call in fake.calls)
    assert openai == {**common, "stream_options": {"include_usage": True}}
    assert anthropic == {**common, "max_tokens": DEFAULT_MAX_TOKENS}
    assert ollama == common


async def test_the_environment_redirects_nothing(
    fake: FakeProvider, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(variable, "test-key-of-someone-else")
    for name in ("openai", "anthropic", "ollama"):
        assert text_in(await collect(make(name), ask("echo"))) == PROMPT
    assert all("someone-else" not in str(call.headers) for call in fake.calls)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_a_server_without_keys_needs_none(
    fake: FakeProvider, make: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    provider = make(name, OPENAI_API_KEY=None, ANTHROPIC_API_KEY=None)
    assert text_in(await collect(provider, ask("echo"))) == PROMPT
    assert fake.calls[0].headers["authorization"] == "Bearer none"


async def test_openai_itself_gets_the_newer_name_of_the_limit(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert vars(make("openai", OPENAI_BASE_URL=None))["_newer_limit"] is True
    assert vars(make("openai"))["_newer_limit"] is False


# --- how it may arrive


@network
@pytest.mark.parametrize("frame_bytes", [1, 7, None])
@pytest.mark.parametrize("crlf", [False, True])
async def test_any_segmentation_reads_the_same(
    fake: FakeProvider, make: Make, name: str, frame_bytes: int | None, crlf: bool
) -> None:
    fake.play("m", Answer(deltas=TEXT, usage=(5, 7), frame_bytes=frame_bytes, crlf=crlf, comments=True))
    assert await collect(make(name), ask("m")) == [
        *(TextDelta(text) for text in TEXT),
        Finished("stop", Usage(input_tokens=5, output_tokens=7)),
    ]


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        (
            "openai",
            rb"""data: {"choices":[{"delta":{"content":"a\ud83e"}}]}

data: {"choices":[{"delta":{"content":"\udd4ab"},"finish_reason":"stop"}]}

data: [DONE]

""",
        ),
        (
            "anthropic",
            rb"""data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a\ud83e"}}

data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"\udd4ab"}}

data: {"type":"message_stop"}

""",
        ),
    ],
)
async def test_a_character_may_come_in_two_halves(make: Make, name: str, wire: bytes) -> None:
    """Two escapes of a surrogate pair, each in a delta of its own: JSON may, UTF-8 cannot."""

    async with answering(wire) as url:
        came = await collect(make(name, OPENAI_BASE_URL=url, ANTHROPIC_BASE_URL=url), ask("m"))
    assert text_in(came) == "a\ud83e\udd4ab"


@network
async def test_a_large_answer_is_whole(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(deltas=lambda _: (f"{n} " for n in range(5000))))
    assert text_in(await collect(make(name), ask("m"))) == "".join(f"{n} " for n in range(5000))


# --- how it may break off


@network
async def test_a_clean_end_without_the_formats_marker_is_not_finished(
    fake: FakeProvider, make: Make, name: str
) -> None:
    fake.play("m", Answer(deltas=["a", "b"], end="truncate"))
    assert await collect(make(name), ask("m")) == [TextDelta("a"), TextDelta("b")]


@network
async def test_a_reset_after_text_is_upstream_truncated(fake: FakeProvider, make: Make, name: str) -> None:
    gate = asyncio.Event()
    fake.play("m", Answer(deltas=["a", "b"], gate=gate, gate_after=2, end="reset"))
    async with aclosing(make(name).stream(ask("m"))) as deltas:
        came: list[Delta] = []
        while len(came) < 2:
            together = await anext(deltas)
            assert not isinstance(together, Finished)
            came += together
        assert came == [TextDelta("a"), TextDelta("b")]
        gate.set()
        with pytest.raises(ProviderError) as caught:
            await anext(deltas)
    assert (caught.value.code, caught.value.retryable) == ("upstream_truncated", True)
    assert not fake.calls[0].closed_by_client


@network
async def test_a_reset_before_any_answer_is_unreachable(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(end="refuse"))
    error = await failure(make(name), ask("m"))
    assert (error.code, error.retryable) == ("provider_unreachable", True)


@network
async def test_a_refused_connection_names_the_host_and_the_variable(
    fake: FakeProvider, make: Make, name: str
) -> None:
    provider = make(name)
    await fake.stop()
    error = await failure(provider, ask("m"))
    assert (error.code, error.retryable) == ("provider_unreachable", True)
    assert host_of(fake.ollama_host) in error.message
    assert {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL", "ollama": "OLLAMA_HOST"}[
        name
    ] in error.message


@network
async def test_an_error_within_the_stream(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(deltas=["a"], end="error_in_band"))
    error = await failure(make(name), ask("m"))
    assert (error.code, error.retryable) == ("provider_unavailable", True)


@network
@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "provider_rejected", False),
        (401, "provider_auth", False),
        (402, "provider_rejected", False),
        (403, "provider_auth", False),
        (404, "provider_model_not_found", False),
        (408, "provider_unavailable", True),
        (413, "provider_rejected", False),
        (422, "provider_rejected", False),
        (429, "provider_rate_limited", True),
        (500, "provider_unavailable", True),
        (503, "provider_unavailable", True),
        (529, "provider_unavailable", True),
    ],
)
async def test_each_status_has_its_code_and_is_tried_once(
    fake: FakeProvider, make: Make, name: str, status: int, code: str, retryable: bool
) -> None:
    fake.play("m", Answer(status=status))
    error = await failure(make(name), ask("m"))
    assert (error.code, error.retryable) == (code, retryable)
    assert name in error.message
    assert len(fake.calls) == 1


async def test_a_refused_key_names_the_variable_to_check(fake: FakeProvider, make: Make) -> None:
    fake.play("m", Answer(status=401))
    error = await failure(make("openai"), ask("m"))
    assert error.message == "openai refused the key (HTTP 401): check OPENAI_API_KEY on the workers"


@network
@pytest.mark.parametrize(
    "body",
    [b"event: x\ndata: {nonsense\n\n", b'event: x\ndata: 1\n\n{"message": 1}\n', b"event: x\ndata: []\n\n[]\n"],
)
async def test_what_is_not_the_protocol_is_said_to_be_so(make: Make, name: str, body: bytes) -> None:
    async with answering(body) as url:
        provider = make(name, OPENAI_BASE_URL=url, ANTHROPIC_BASE_URL=url, OLLAMA_HOST=url)
        error = await failure(provider, ask("m"))
    assert (error.code, error.retryable) == ("provider_protocol", False)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("rate_limit_error", "provider_rate_limited"),
        ("authentication_error", "provider_auth"),
        ("invalid_request_error", "provider_rejected"),
        ("502", "provider_unavailable"),
        ("overloaded_error", "provider_unavailable"),
    ],
)
def test_errors_within_a_stream_are_told_by_their_kind(kind: str, code: str) -> None:
    class APIError(Exception):
        type = kind

    upstream = Upstream("openai", "api.openai.com", "OPENAI_API_KEY", "OPENAI_BASE_URL")
    assert provider_error(APIError(), upstream, model="m", started=True).code == code


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://user:secret@example.com:8080/v1", "example.com:8080"),
        ("https://api.openai.com/v1", "api.openai.com"),
        ("127.0.0.1:11434", "127.0.0.1:11434"),
        ("gpu-box", "gpu-box"),
    ],
)
def test_a_host_carries_no_credentials(url: str, host: str) -> None:
    assert host_of(url) == host


# --- closing


@network
async def test_closing_the_generator_closes_the_providers_connection(
    fake: FakeProvider, make: Make, name: str
) -> None:
    fake.play("m", Answer(deltas=["a", "b"], gate=asyncio.Event(), gate_after=1))
    async with aclosing(make(name).stream(ask("m"))) as deltas:
        assert await anext(deltas) == [TextDelta("a")]
    await fake.calls[0].wait_closed(timeout_s=1)
    assert fake.calls[0].closed_by_client
    assert fake.calls[0].sent_deltas == 1


@network
@pytest.mark.parametrize("answer", [Answer(first_delay_s=60), Answer(deltas=["a"], end="hang")])
async def test_cancelling_the_reader_closes_the_providers_connection(
    fake: FakeProvider, make: Make, name: str, answer: Answer
) -> None:
    fake.play("m", answer)
    reader = asyncio.create_task(collect(make(name), ask("m")))
    (call,) = await fake.wait_calls(1)
    if not answer.first_delay_s:
        await call.wait_deltas(1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await call.wait_closed(timeout_s=1)
    assert call.closed_by_client


@network
async def test_a_reader_that_stops_reading_stops_the_provider(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(deltas=lambda _: itertools.repeat("x" * 1000)))
    async with aclosing(make(name).stream(ask("m"))) as deltas:
        await anext(deltas)
        (call,) = fake.calls
        await call.wait_stalled(0.5)
        before = call.sent_bytes
        assert call.stalled_s >= 0.5
        while call.sent_bytes == before:
            await anext(deltas)
    await call.wait_closed(timeout_s=1)
    assert call.closed_by_client


async def test_clients_that_vanish_anywhere_trouble_neither_the_server_nor_the_others(
    fake: FakeProvider, make: Make
) -> None:
    fake.play("m", Answer(deltas=lambda number: itertools.repeat(f"call {number} "), delay_s=0.001))
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}'
    request = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    port = int(fake.ollama_host.rpartition(":")[2])

    async def vanish(after: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request[:after] if after < len(request) else request)
        await asyncio.sleep(after % 7 / 100)
        writer.transport.abort() if after % 2 else writer.close()

    await asyncio.gather(*(vanish(after) for after in range(0, 2 * len(request), 3)), vanish_with_nonsense(port))
    for call in await fake.wait_calls(1):
        await call.wait_closed()
    assert text_in(await collect(make("openai"), ask("echo"))) == PROMPT


async def vanish_with_nonsense(port: int) -> None:
    for nonsense in (b"\x16\x03\x01\r\n\r\n", b"POST /api/chat HTTP/1.1\r\ncontent-length: 3\r\n\r\n{x}"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(nonsense)
        await reader.read(100)
        writer.close()


# --- what is offered


@network
async def test_offer_is_what_the_provider_lists(fake: FakeProvider, make: Make, name: str) -> None:
    fake.models = ("b", "a")
    assert await make(name).list_models() == ModelList(("b", "a"))


@network
async def test_offer_is_what_the_operator_says_without_asking(fake: FakeProvider, make: Make, name: str) -> None:
    fake.models = ("b", "a")
    assert await make(name, **{f"{name}_models": "c, d"}).list_models() == ModelList(("c", "d"))


@network
@pytest.mark.parametrize("trouble", ["empty", "status", "silent", "down"])
async def test_offer_is_open_where_the_provider_cannot_say(
    fake: FakeProvider, make: Make, monkeypatch: pytest.MonkeyPatch, name: str, trouble: str
) -> None:
    provider = make(name)
    match trouble:
        case "empty":
            fake.models = ()
        case "status":
            fake.list_status = 404
        case "silent":
            monkeypatch.setattr(http_calls, "LIST_TIMEOUT_S", 0.1)
            fake.list_gate = asyncio.Event()
        case "down":
            await fake.stop()
    assert await provider.list_models() == ModelList((), open=True)


async def test_cancelling_an_offer_cancels_it(fake: FakeProvider, make: Make) -> None:
    fake.list_gate = asyncio.Event()
    asking = asyncio.create_task(make("openai").list_models())
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_providers_are_those_that_the_environment_names(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = {
        "OPENAI_API_KEY": None,
        "OPENAI_BASE_URL": None,
        "ANTHROPIC_API_KEY": None,
        "ANTHROPIC_BASE_URL": None,
        "OLLAMA_HOST": None,
    }
    for variable in nothing:
        monkeypatch.delenv(variable, raising=False)
    rows: list[tuple[dict[str, object], set[str]]] = [
        ({}, {"demo"}),
        ({"OPENAI_API_KEY": KEY}, {"demo", "openai"}),
        ({"OPENAI_BASE_URL": fake.openai_base_url}, {"demo", "openai"}),
        ({"ANTHROPIC_API_KEY": KEY}, {"demo", "anthropic"}),
        ({"ANTHROPIC_BASE_URL": fake.anthropic_base_url}, {"demo", "anthropic"}),
        ({"OLLAMA_HOST": fake.ollama_host}, {"demo", "ollama"}),
    ]
    for given, names in rows:
        providers = configured_providers(settings_for(fake, **nothing | given))
        assert set(providers) == names
        for name, provider in providers.items():
            assert provider.name == name
            await provider.aclose()


# --- the demo


def demo(fake: FakeProvider, tokens_per_s: float = 1e6) -> DemoProvider:
    return DemoProvider(settings_for(fake, demo_tokens_per_s=tokens_per_s))


async def test_the_demo_tells_one_story_whatever_it_is_asked(fake: FakeProvider) -> None:
    first = await collect(demo(fake), ask("demo", "Hello there"))
    second = await collect(demo(fake), ask("demo", "Something else"))
    assert first == second
    assert text_in(first) == STORY
    assert "not a language model" in STORY
    assert first[-1] == Finished("stop", Usage(input_tokens=2, output_tokens=len(first) - 1))
    assert await demo(fake).list_models() == ModelList(("demo",))


@pytest.mark.parametrize("prompt", ["Give me 500 words.", "please count to 500"])
async def test_the_demo_counts_when_asked_to(fake: FakeProvider, prompt: str) -> None:
    text = text_in(await collect(demo(fake), ask("demo", prompt)))
    assert text == demo_text(ask("demo", prompt))
    words = text.partition("\n\n")[2].split()
    assert len(words) == 500
    assert (words[0], words[-1]) == ("lake-1", "wheel-500")


async def test_the_demo_honours_limit_and_stop(fake: FakeProvider) -> None:
    limited = await collect(demo(fake), ask("demo", max_tokens=3))
    assert len(limited) == 4
    assert limited[-1] == Finished("length", Usage(input_tokens=3, output_tokens=3))
    stopped = await collect(demo(fake), ask("demo", stop=["gate at its mouth", "daughter dug"]))
    assert text_in(stopped) == STORY[: STORY.index("daughter dug")]
    finished = stopped[-1]
    assert isinstance(finished, Finished)
    assert finished.reason == "stop"


async def test_a_limit_that_is_just_enough_is_not_reached(fake: FakeProvider) -> None:
    whole = await collect(demo(fake), ask("demo"))
    assert await collect(demo(fake), ask("demo", max_tokens=len(whole) - 1)) == whole


async def test_the_demo_keeps_its_pace(fake: FakeProvider) -> None:
    begun_at = time.monotonic()
    await collect(demo(fake, tokens_per_s=500), ask("demo", max_tokens=101))
    took = time.monotonic() - begun_at
    assert 0.2 <= took < 1
