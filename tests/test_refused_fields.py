"""A field that a server refuses is left out or renamed, once, and the client learns of each loss."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes import Answer, FakeProvider
from tests.prometheus import Metrics
from tests.provider_client import PROMPT, Make, ask, collect, failure, parts_of, text_in
from tests.sse_client import Frame, error_of, text_of
from tests.system import PROVIDERS, System
from workers.providers import refused_fields
from workers.providers.anthropic_request import ignored_by
from workers.providers.base import Finished, IgnoredFields
from workers.providers.errors import Upstream
from workers.providers.openai import limit_of
from workers.providers.refused_fields import OPENAI_FIELDS, AdaptedRequest, RefusedFields

SPOKEN = Answer(deltas=["spoken"], usage=(3, 1))
TOOL = {"type": "function", "function": {"name": "one"}}
#: A request with every field that OpenAI's wire may lose.
EVERYTHING: dict[str, Any] = {
    "max_tokens": 9,
    "tools": [TOOL],
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
}


def refusal(name: str, status: int = 400) -> Answer:
    error = {"message": f"Unsupported parameter: '{name}'", "param": name, "code": "unsupported_parameter"}
    return Answer(status=status, error_body={"error": error})


def fastapi_refusal(name: str) -> Answer:
    problem = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
    return Answer(status=422, error_body={"detail": [problem]})


def text_refusal(name: str) -> Answer:
    return Answer(status=400, error_body={"error": f"Unrecognized request argument supplied: {name}"})


def streamed_refusal(name: str) -> Answer:
    error = {"message": f"Unknown parameter: '{name}'.", "type": "invalid_request_error"}
    return Answer(raw=b"data: %b\n\n" % json.dumps({"error": error}).encode())


REFUSALS = (refusal, fastapi_refusal, text_refusal, streamed_refusal)
ROLE_REFUSED = Answer(
    status=400,
    error_body={
        "error": {
            "message": "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            "param": "messages[0].role",
            "code": "unsupported_value",
        }
    },
)


def requests_to(fake: FakeProvider, model: str) -> list[dict[str, Any]]:
    return [call.request for call in fake.calls if call.model == model]


# --- through the whole system


@pytest.fixture(scope="module")
async def learning(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One worker, so that it has learned from every earlier request, and a breaker that opens at once."""
    folder = tmp_path_factory.mktemp("learning")
    (folder / "metrics").mkdir()
    system = System(
        folder,
        gateways=1,
        workers=1,
        environment={"PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics")},
        provider_retries=1,
        breaker_failures=1,
        providers=PROVIDERS,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def answer(system: System, model: str, **body: Any) -> tuple[list[Frame], dict[str, Any]]:
    """Return the frames of one answer and its status."""
    async with await system.stream(model, **body) as connection:
        frames = await connection.rest()
    return frames, await system.status(connection.stream_id)


def ignored_in(frames: list[Frame]) -> list[str] | None:
    (start,) = (frame for frame in frames if frame.event == "start")
    ignored: list[str] | None = start.data.get("ignored")
    return ignored


@pytest.mark.parametrize("refuse", REFUSALS)
@pytest.mark.parametrize("name", ["parallel_tool_calls", "reasoning_effort"])
async def test_a_loss_is_named_in_start_and_in_the_status(learning: System, name: str, refuse: Any) -> None:
    model = f"{name}-{refuse.__name__}"
    learning.fake.play(model, refuse(name), SPOKEN)
    for _ in range(2):
        frames, status = await answer(learning, model, **EVERYTHING)
        assert text_of(frames) == "spoken"
        assert ignored_in(frames) == status["ignored"] == [name]
    first, *adapted = requests_to(learning.fake, model)
    assert first.pop(name) == EVERYTHING[name]
    assert adapted == [first, first]  # nothing else is left out, and the second request does not ask again


@pytest.mark.parametrize("refuse", REFUSALS)
async def test_a_rename_and_a_field_of_our_own_are_no_loss(learning: System, refuse: Any) -> None:
    model = f"own-{refuse.__name__}"
    learning.fake.play(model, refuse("max_tokens"), refuse("stream_options"), ROLE_REFUSED, SPOKEN)
    for _ in range(2):
        frames, status = await answer(learning, model, **EVERYTHING)
        assert text_of(frames) == "spoken"
        assert ignored_in(frames) is None
        assert status["ignored"] == []
    first, *_, fourth, fifth = requests_to(learning.fake, model)
    assert first.pop("stream_options") == {"include_usage": True}
    first["max_completion_tokens"] = first.pop("max_tokens")
    first["messages"][0]["role"] = "developer"
    assert fourth == fifth == first


async def test_repeats_are_no_retries_and_do_not_open_the_circuit_breaker(learning: System) -> None:
    before = await retries(learning)
    names = ("stream_options", "parallel_tool_calls", "reasoning_effort", "max_tokens")
    learning.fake.play("four", *map(refusal, names), SPOKEN)
    frames, status = await answer(learning, "four", **EVERYTHING)
    assert text_of(frames) == "spoken"
    assert status["ignored"] == ["parallel_tool_calls", "reasoning_effort"]
    assert len(requests_to(learning.fake, "four")) == 5
    learning.fake.play("five", *map(refusal, names), ROLE_REFUSED, SPOKEN)
    frames, _ = await answer(learning, "five", **EVERYTHING)
    assert error_of(frames) == ("provider_rejected", False)
    assert len(requests_to(learning.fake, "five")) == 5
    assert text_of((await answer(learning, "five", **EVERYTHING))[0]) == "spoken"
    assert await retries(learning) == before
    assert text_of((await answer(learning, "echo", prompt="hello"))[0]) == "hello"


async def retries(system: System) -> float:
    text = (await system.http.get(f"{system.url}/metrics")).text
    return Metrics(text).value("headrace_provider_retries_total")


async def test_a_refusal_of_another_field_is_passed_on_with_its_name(learning: System) -> None:
    learning.fake.play("strict", refusal("temperature"), SPOKEN)
    async with await learning.stream("strict", temperature=0.5, **EVERYTHING) as connection:
        frames = await connection.rest()
    (error,) = (frame.data for frame in frames if frame.event == "error")
    assert (error["code"], error["param"]) == ("provider_rejected", "temperature")
    assert len(requests_to(learning.fake, "strict")) == 1
    learning.fake.play("stricter", fastapi_refusal("temperature"))
    async with await learning.stream("stricter", temperature=0.5) as connection:
        frames = await connection.rest()
    assert next(frame.data for frame in frames if frame.event == "error")["param"] == "temperature"


@pytest.mark.parametrize(
    ("provider", "message", "fields", "lost", "path"),
    [
        ("anthropic", "thinking: Extra inputs are not permitted", {}, "thinking", "reasoning_effort"),
        ("anthropic", "output_config: Extra inputs are not permitted", {}, "output_config", "reasoning_effort"),
        (
            "anthropic",
            "tool_choice.disable_parallel_tool_use: Extra inputs are not permitted",
            {"tools": [TOOL], "parallel_tool_calls": False, "reasoning_effort": None},
            "tool_choice",
            "parallel_tool_calls",
        ),
        ("ollama", '"m" does not support thinking', {}, "think", "reasoning_effort"),
    ],
)
async def test_other_providers_refuse_fields_too(
    learning: System, provider: str, message: str, fields: dict[str, Any], lost: str, path: str
) -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    model = f"{provider}-{lost}"
    learning.fake.play(
        model, Answer(status=400, error_body={"error": message} if provider == "ollama" else error), SPOKEN
    )
    for _ in range(2):
        body = {"reasoning_effort": "high", **fields}
        frames, status = await answer(learning, model, provider=provider, **body)
        assert text_of(frames) == "spoken"
        assert ignored_in(frames) == status["ignored"] == [path]
    first, second, third = requests_to(learning.fake, model)
    assert lost in first
    assert lost not in second
    assert second == third


async def test_the_log_names_fields_and_no_text_of_the_provider(learning: System) -> None:
    error = {"message": f"Unknown parameter: 'reasoning_effort'. {PROMPT}", "param": "reasoning_effort"}
    learning.fake.play("indiscreet", Answer(status=400, error_body={"error": error}), SPOKEN)
    _, status = await answer(learning, "indiscreet", reasoning_effort="low")
    log = learning.workers[0].log.read_text()
    assert PROMPT not in log
    lines = [json.loads(line) for line in log.splitlines() if '"indiscreet"' in line and line.startswith("{")]
    assert [line["fields"] for line in lines if line["event"] == "field refused by provider"] == [
        ["reasoning_effort"]
    ]
    (line,) = (line for line in lines if line["event"] == "fields ignored")
    assert (line["stream_id"], line["ignored"]) == (status["stream_id"], ["reasoning_effort"])


# --- at the adapters


async def test_without_stream_options_usage_is_not_reported(fake: FakeProvider, make: Make) -> None:
    fake.play("m", refusal("stream_options"), Answer(deltas=["a"], usage=None))
    finished = (await collect(make("openai"), ask("m")))[-1]
    assert isinstance(finished, Finished)
    assert finished.usage is None


async def test_a_limit_that_is_refused_under_both_names_is_passed_on(fake: FakeProvider, make: Make) -> None:
    """Without its limit, an answer could be longer than the client allowed."""
    fake.play("m", refusal("max_tokens"), refusal("max_completion_tokens"))
    provider = make("openai")
    for _ in range(2):
        assert (await failure(provider, ask("m", max_tokens=9))).param == "max_completion_tokens"
    names = ["max_tokens", "max_completion_tokens"]
    assert [name for call in fake.calls for name in names if name in call.request][:2] == names


async def test_a_limit_that_is_too_large_is_not_renamed(fake: FakeProvider, make: Make) -> None:
    message = "max_tokens is too large: 100000. This model supports at most 4096 completion tokens."
    fake.play("m", Answer(status=400, error_body={"error": {"message": message, "param": "max_tokens"}}))
    assert (await failure(make("openai"), ask("m", max_tokens=100_000))).param == "max_tokens"
    assert len(fake.calls) == 1


async def test_a_value_that_is_refused_does_not_forbid_others(fake: FakeProvider, make: Make) -> None:
    message = "Unsupported value: 'reasoning_effort' does not support 'minimal' with this model."
    error = {"message": message, "param": "reasoning_effort", "code": "unsupported_value"}
    fake.play("m", Answer(status=400, error_body={"error": error}), SPOKEN)
    provider = make("openai")
    for effort in ("minimal", "minimal", "low"):
        await collect(provider, ask("m", reasoning_effort=effort))
    assert [call.request.get("reasoning_effort") for call in fake.calls] == ["minimal", None, None, "low"]


async def test_a_refusal_after_text_is_not_repeated(fake: FakeProvider, make: Make) -> None:
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    error = b'data: {"error":{"message":"Unknown parameter: \'stream_options\'","type":"invalid_request_error"}}\n\n'
    fake.play("m", Answer(raw=chunk + error), SPOKEN)
    assert (await failure(make("openai"), ask("m"))).code == "provider_rejected"
    assert len(fake.calls) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 413, 429, 500, 503])
async def test_only_rejections_are_read(fake: FakeProvider, make: Make, status: int) -> None:
    fake.play("m", refusal("stream_options", status), SPOKEN)
    await failure(make("openai"), ask("m"))
    assert len(fake.calls) == 1


async def test_each_model_is_remembered_by_itself(fake: FakeProvider, make: Make) -> None:
    fake.play("m", refusal("stream_options"), SPOKEN)
    fake.play("n", SPOKEN)
    provider = make("openai")
    for model in ("m", "m", "n"):
        assert text_in(await collect(provider, ask(model))) == "spoken"
    assert ["stream_options" in call.request for call in fake.calls] == [True, False, False, True]


async def test_a_field_without_effect_is_no_loss(fake: FakeProvider, make: Make) -> None:
    """Without tools, ``parallel_tool_calls`` is not sent."""
    fake.play("m", refusal("parallel_tool_calls"), SPOKEN)
    provider = make("openai")
    parts = await parts_of(provider, ask("m", tools=[TOOL], parallel_tool_calls=False))
    assert parts[0] == IgnoredFields(("parallel_tool_calls",))
    assert not isinstance((await parts_of(provider, ask("m", parallel_tool_calls=False)))[0], IgnoredFields)


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"reasoning_effort": "low"}, ()),
        ({"reasoning_effort": "none"}, ()),
        ({"reasoning_effort": "low", "tools": [TOOL], "tool_choice": "required"}, ("reasoning_effort",)),
        ({"response_format": {"type": "json_object"}}, ()),
        ({"response_format": {"type": "json_object"}, "tools": [TOOL]}, ("response_format",)),
    ],
)
def test_anthropic_cannot_combine_some_fields(fields: dict[str, Any], ignored: tuple[str, ...]) -> None:
    assert ignored_by(ask("m", **fields)) == ignored


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1/", "max_completion_tokens"),
        ("https://api.openai.com.example/v1", "max_tokens"),
        ("http://127.0.0.1:8000/v1", "max_tokens"),
    ],
)
def test_openai_itself_gets_the_newer_name_of_the_token_limit(url: str, name: str) -> None:
    assert limit_of(url) == name


# --- the memory

SERVER = Upstream("openai", "localhost", "", "", "openai")


def test_the_memory_is_bounded_and_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    memory = RefusedFields(SERVER, OPENAI_FIELDS)
    for n in range(1500):
        memory.add(f"m{n}", {"stream_options"})
    assert memory.of("m499") == frozenset()
    assert memory.of("m500") == memory.of("m1499") == {"stream_options"}
    now += refused_fields.REMEMBERED_S
    assert memory.of("m1499") == frozenset()


def test_a_change_that_did_not_help_is_forgotten() -> None:
    class Refused(Exception):
        def __init__(self, message: str) -> None:
            self.body = {"message": message}

    memory = RefusedFields(SERVER, OPENAI_FIELDS)
    for _ in range(2):
        adapted = AdaptedRequest(ask("m"), memory, lambda request: {"messages": [], "stream_options": {}})
        assert adapted.refuse(Refused("Unknown parameter: 'stream_options'"))
        adapted.accepted()
        assert memory.of("m") == {"stream_options"}
        assert not adapted.refuse(Refused("Unknown parameter: 'other'"))
        assert memory.of("m") == frozenset()
    assert adapted.body == {"messages": []}


@pytest.mark.parametrize("value", ["effort", 7, ["effort"], None])
@pytest.mark.parametrize("name", ["thinking", "output_config"])
async def test_a_value_of_another_type_is_the_servers_to_refuse(
    make: Make, fake: FakeProvider, name: str, value: Any
) -> None:
    """The client's options go to the server as they are; the repair of a refused field must not fail at them."""
    provider, options = make("anthropic"), {name: value, "max_tokens": "many"}
    for word in ("effort", "thinking", "adaptive"):
        fake.play("odd", refusal(word))
        request = ask("odd", reasoning_effort="low", provider_options={"anthropic": options})
        assert (await failure(provider, request)).code == "provider_rejected"


@pytest.mark.parametrize("kind", ["invalid_value", "unsupported_value", "invalid_type"])
async def test_a_wrong_value_of_one_client_takes_the_field_from_no_other(
    make: Make, fake: FakeProvider, kind: str
) -> None:
    provider = make("openai")
    problem = {"message": "Invalid value: 'loud'.", "param": "verbosity", "code": kind}
    fake.play("valued", Answer(status=400, error_body={"error": problem}), SPOKEN, SPOKEN)
    wrong, right = (
        ask("valued", provider_options={"openai": {"verbosity": verbosity}}) for verbosity in ("loud", "low")
    )
    assert (await failure(provider, wrong)).code == "provider_rejected"
    assert text_in(await collect(provider, right)) == "spoken"
    assert fake.calls[-1].request["verbosity"] == "low"
