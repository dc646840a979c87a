"""Content keys leave no name and no word of a request or an answer readable outside the sealed events: not in
Redis or its files, not for operators, and not in logs, metrics or traces."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.collector import Collector
from tests.fakes.answer import Answer, ToolCall
from tests.ports import free_port
from tests.system import System, ask
from tests.test_privacy import FIRST, everything

#: Part of each name and word of the requests and answers here.
WORD = "canary"
SCHEMA = {"type": "object", "additionalProperties": {"type": "integer"}}
#: A violation of it has a name at the end of the keyword's path.
NOTHING_ALLOWED = {"type": "object", "properties": {"canary-property": False}}


def schema_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "canary-schema", "schema": schema}}


def tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"canary-parameter": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": "canary", "parameters": parameters}}


def refusal(code: str, param: str) -> dict[str, Any]:
    return {"error": {"message": f"canary {param}", "type": "invalid_request_error", "code": code, "param": param}}


#: The answer of each model, and what its request adds.
CASES: dict[str, tuple[Answer, dict[str, Any]]] = {
    "violates": (
        Answer(deltas=[json.dumps({"canary-member": "canary"})]),
        {"response_format": schema_of(SCHEMA)},
    ),
    "violates-by-name": (
        Answer(deltas=[json.dumps({"canary-property": 1})]),
        {"response_format": schema_of(NOTHING_ALLOWED)},
    ),
    "calls": (
        Answer(tools=[ToolCall("canary-call", "canary-tool", ('{"canary-argument": "canary"}',))]),
        {"tools": [tool("canary-tool")]},
    ),
    "calls-badly": (
        Answer(tools=[ToolCall("c", "canary-invented", ('{"canary-argument": ',))]),
        {"tools": [tool("canary-tool")]},
    ),
    "rejects": (
        Answer(status=400, error_body=refusal("invalid_value", "tools.0.function.parameters.canary")),
        {"tools": [tool("canary-tool")]},
    ),
    "rejects-oddly": (Answer(status=400, error_body=refusal("canary-code", "canary text")), {}),
    "fails": (Answer(status=503, error_body=refusal("canary-code", "canary")), {}),
    "fails-within": (Answer(deltas=["canary "], end="error_in_band", error_type="canary_error"), {}),
    "ends-oddly": (Answer(deltas=["canary "], finish_reason="canary reason"), {}),
    "ends-with-a-quote": (Answer(deltas=["canary "], finish_reason="malformed_function_call: canary"), {}),
    "sends-junk": (Answer(raw=b"data: {canary\n\n"), {}),
    "reasons": (Answer(deltas=["canary"], reasoning=["canary"], refusal=["canary"]), {}),
    "refuses-a-field": (
        Answer(status=400, error_body=refusal("unsupported_parameter", "parallel_tool_calls")),
        {"tools": [tool("canary-tool")], "parallel_tool_calls": False},
    ),
}


@pytest.fixture(scope="module")
def collector() -> Any:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
async def sealed(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> AsyncIterator[System]:
    """Start a system with content keys, traces, metrics of the worker, and logs at their lowest level."""
    system = System(
        tmp_path_factory.mktemp("sealed"),
        providers=("openai",),
        gateways=1,
        workers=1,
        environment={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"},
        content_keys=FIRST,
        log_level="debug",
        metrics_port=free_port(),
        provider_retries=0,
        end_grace_s=1,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def readable(system: System, collector: Collector, stream_ids: list[str]) -> dict[str, bytes]:
    """Return everything that is readable without a content key and without being an answer's owner."""
    seen: dict[str, bytes] = {}
    async with system.broker.client() as client:
        for key, content in (await everything(client)).items():
            seen[f"Redis {key}"] = key.encode() + content
        await client.config_set("appendfsync", "always")
        await client.set("flushed", 1, ex=1)  # everything before it is in the file now
        await client.save()
    for path in system.folder.rglob("*"):
        if path.is_file():
            seen[f"file {path.name}"] = path.read_bytes()
    worker_metrics = f"http://127.0.0.1:{system.workers[0].environment['HEADRACE_METRICS_PORT']}/metrics"
    pages = [f"{system.url}/ops/overview", f"{system.url}/metrics", worker_metrics]
    for url in (*pages, *(f"{system.url}/ops/streams/{stream_id}" for stream_id in stream_ids)):
        answer = await system.http.get(url)
        assert answer.status_code == 200, url
        seen[url] = answer.content
    seen["traces"] = b"".join(collector.bodies)
    return seen


async def traced(collector: Collector, system: System, stream_id: str) -> bool:
    trace_id = (await system.field(stream_id, "traceparent") or "").split("-")[1]
    return "generate" in collector.of(trace_id)


async def test_no_name_and_no_word_is_readable_outside_the_events(sealed: System, collector: Collector) -> None:
    headers = {"Idempotency-Key": "canary-key"}
    stream_ids = {}
    for model, (answer, fields) in CASES.items():
        sealed.fake.play(model, answer, Answer(deltas=["canary"]))
        metadata = {"canary-name": "canary-value"}
        body = ask(model, "canary", metadata=metadata, stop=["canary-stop"], **fields)
        key = {"Idempotency-Key": f"{headers['Idempotency-Key']}-{model}"}
        stream_ids[model] = (await sealed.http.post(f"{sealed.url}/chat", json=body, headers=key)).json()["stream_id"]
    ended = {model: await sealed.ended(stream_id) for model, stream_id in stream_ids.items()}

    sealed.fake.play("chats", Answer(deltas=["canary"]))
    previous: str | None = None
    for _ in range(2):
        response: dict[str, Any] = {"model": "openai/chats", "input": "canary", "instructions": "canary"}
        response |= {"previous_response_id": previous}
        previous = (await sealed.http.post(f"{sealed.url}/v1/responses", json=response)).json()["id"]
    parts = [{"type": "text", "text": "canary"}]
    message = {"id": "canary-message", "role": "assistant", "parts": parts}
    question = {"id": "canary-question", "role": "user", "parts": parts}
    chat = {
        "id": "canary-chat",
        "model": "openai/chats",
        "messages": [question, message],
        "trigger": "regenerate-message",
        "messageId": "canary-message",
    }
    answered = await sealed.http.post(f"{sealed.url}/api/chat", json=chat)
    assert answered.status_code == 200, answered.text
    resumed = await sealed.http.get(f"{sealed.url}/api/chat/canary-chat/stream?ended=true")
    assert "canary" in resumed.text
    invalid = ask("violates", "canary", response_format=schema_of({"properties": {"canary-bad": {"type": "canary"}}}))
    assert (await sealed.http.post(f"{sealed.url}/chat", json=invalid)).status_code == 422

    everyone = [*stream_ids.values(), str(previous).removeprefix("resp_"), answered.headers["x-stream-id"]]
    for stream_id in everyone:
        await sealed.eventually(lambda: traced(collector, sealed, stream_id))  # noqa: B023  awaited at once
    seen = await readable(sealed, collector, everyone)
    assert len(seen) > len(everyone) + 10
    leaks = {
        place: content[max(0, at - 80) : at + 80]
        for place, content in seen.items()
        if (at := content.lower().find(WORD.encode())) >= 0
    }
    assert leaks == {}

    errors: Any = {model: status["error"] or {} for model, status in ended.items()}
    assert '$.canary-member fails "type"' in errors["violates"]["message"]
    assert '$.canary-property fails "properties"' in errors["violates-by-name"]["message"]
    assert "canary-invented" in errors["calls-badly"]["message"]
    assert errors["rejects"]["param"] == "tools.0.function.parameters.canary"
    assert ended["ends-oddly"]["reason"] == "canary reason"
    assert ended["refuses-a-field"]["ignored"] == ["parallel_tool_calls"]
    shown = {
        model: (await sealed.http.get(f"{sealed.url}/ops/streams/{stream_ids[model]}")).json()
        for model in ("violates", "calls-badly", "rejects", "ends-oddly")
    }
    assert shown["violates"]["error"]["code"] == "schema_violation"
    assert 'it fails "type"' in shown["violates"]["error"]["message"]
    assert shown["rejects"]["error"]["provider_code"] == "invalid_value"
    assert shown["ends-oddly"]["reason"] == "other"


async def test_a_path_in_an_error_is_bounded(sealed: System) -> None:
    long = "x" * 5_000
    value: Any = 1
    for _ in range(20):
        value = {long: value}
    nested: dict[str, Any] = {"type": "object", "additionalProperties": {"$ref": "#"}}
    sealed.fake.play("nests", Answer(deltas=[json.dumps(value)]))
    status = await sealed.ended(await sealed.post("nests", response_format=schema_of(nested)))
    error: Any = status["error"]
    assert error["code"] == "schema_violation"
    assert len(error["message"]) < 400
