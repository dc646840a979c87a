"""Traces lead from the request to the provider; log lines can be joined by their ids; neither has private content."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.version import VERSION
from tests.collector import Collected, Collector
from tests.conftest import StartSystem
from tests.credentials import AUDIENCE, JWT_SECRET, bearer, make_key, token
from tests.fakes.answer import Answer, Counts
from tests.system import REPOSITORY, SECRET, System, ask

#: Spans are sent at once, so that tests need not wait for them, and again for a minute if the collector stands still.
PROMPTLY = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
COUNTS = Counts(30, 9, cached=20, cache_write=4, reasoning=5)
CANARIES = ("canary-prompt", "canary-answer", "canary-metadata", "canary-query", "canary-key", "canary-error")


@pytest.fixture(scope="module")
def collector() -> Any:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
async def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> AsyncIterator[System]:
    """Start a system with traces, and with logs at their lowest level."""
    system = System(
        tmp_path_factory.mktemp("traced"),
        providers=("openai",),
        gateways=1,
        workers=1,
        environment={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **PROMPTLY},
        log_level="debug",
        auth="keys,jwt",
        jwt_secret=JWT_SECRET,
        jwt_audience=AUDIENCE,
        credentials=bearer(token("alice")),
        provider_retries=0,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


def lines(log: Path, **wanted: object) -> list[dict[str, Any]]:
    """Return the complete lines of a process that have these fields."""
    complete = log.read_text().rpartition("\n")[0].splitlines()
    found = [json.loads(line) for line in complete if line.startswith("{")]
    return [line for line in found if wanted.items() <= line.items()]


async def line_of(system: System, log: Path, **wanted: object) -> dict[str, Any]:
    """Wait for the only line with these fields."""

    async def found() -> list[dict[str, Any]]:
        return lines(log, **wanted)

    (line,) = await system.eventually(found)
    return line


async def trace_of(system: System, collector: Collector, stream_id: str, *names: str) -> dict[str, list[Collected]]:
    """Wait for the stream's trace to contain spans of all these names."""
    trace_id = (await system.field(stream_id, "traceparent") or "").split("-")[1]

    async def is_complete() -> dict[str, list[Collected]] | None:
        found = collector.of(trace_id)
        return found if set(names) <= set(found) else None

    return await system.eventually(is_complete)


# --- traces


async def test_a_trace_leads_from_the_request_to_the_provider(traced: System, collector: Collector) -> None:
    """The trace begins with the caller's own span."""
    traced.fake.play("echoes", Answer(deltas=("canary-answer ", "more"), delay_s=0.01))
    caller = f"00-{'ab' * 16}-{'cd' * 8}-01"
    answer = await traced.http.post(
        f"{traced.url}/chat", json=ask("echoes", "canary-prompt", max_tokens=77), headers={"traceparent": caller}
    )
    stream_id = answer.json()["stream_id"]
    await traced.ended(stream_id)
    found = await trace_of(traced, collector, stream_id, "POST /chat", "queue", "generate", "chat echoes")
    (post,), (queue,), (generate,), (call,) = (
        found[name] for name in ("POST /chat", "queue", "generate", "chat echoes")
    )
    assert (post.trace_id, post.parent_id) == ("ab" * 16, "cd" * 8)
    assert queue.parent_id == generate.parent_id == post.span_id
    assert call.parent_id == generate.span_id
    assert [span.kind for span in (post, queue, generate, call)] == ["server", "internal", "consumer", "client"]
    assert {post.service, generate.service} == {"headrace-gateway", "headrace-worker"}
    assert post.began <= post.ended
    assert generate.began <= call.began <= call.ended <= generate.ended
    assert (post.attributes["http.route"], post.attributes["http.response.status_code"]) == ("/chat", 202)
    assert {span.attributes["headrace.stream_id"] for span in (post, queue, generate)} == {stream_id}
    attributes = call.attributes
    assert attributes["gen_ai.operation.name"] == "chat"
    assert (attributes["gen_ai.provider.name"], attributes["gen_ai.request.model"]) == ("openai", "echoes")
    assert attributes["gen_ai.request.max_tokens"] == 77
    assert attributes["gen_ai.response.finish_reasons"] == ["stop"]
    usage = (await traced.status(stream_id))["usage"]
    assert isinstance(usage, dict)
    assert attributes["gen_ai.usage.input_tokens"] == usage["input_tokens"]
    assert attributes["gen_ai.usage.output_tokens"] == usage["output_tokens"]
    assert set(call.events) == {"first_token"}
    assert "error.type" not in attributes


async def test_the_span_and_the_log_line_have_all_counts_by_their_names(traced: System, collector: Collector) -> None:
    traced.fake.play("counts", Answer(deltas=("canary-answer ",), usage=COUNTS))
    traced.fake.play("half", Answer(deltas=("canary-answer ",), usage=Counts(30, None)))
    expected = {
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 20,
        "gen_ai.usage.cache_write.input_tokens": 4,
        "gen_ai.usage.cache_creation.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 5,
    }
    for model, counts in (("counts", expected), ("half", {"gen_ai.usage.input_tokens": 30})):
        stream_id = await traced.post(model)
        await traced.ended(stream_id)
        (call,) = (await trace_of(traced, collector, stream_id, f"chat {model}"))[f"chat {model}"]
        line = await line_of(traced, traced.workers[0].log, event="stream ended", stream_id=stream_id)
        for named in (call.attributes, line):
            assert {name: value for name, value in named.items() if name.startswith("gen_ai.usage.")} == counts
        assert (line["input_tokens"], line.get("output_tokens")) == (30, counts.get("gen_ai.usage.output_tokens"))


async def test_the_spans_of_a_failure_have_its_type(traced: System, collector: Collector) -> None:
    traced.fake.play("fails", Answer(status=401))
    stream_id = await traced.post("fails")
    await traced.ended(stream_id)
    found = await trace_of(traced, collector, stream_id, "generate", "chat fails")
    for name in ("generate", "chat fails"):
        assert found[name][0].attributes["error.type"] == "provider_auth"


async def test_a_resume_and_a_takeover_belong_to_the_same_trace(traced: System, collector: Collector) -> None:
    traced.fake.play("hangs", Answer(deltas=("canary-answer ",) * 3, end="hang"))
    stream_id = await traced.post("hangs")

    async def has_text() -> str | None:
        status = await traced.status(stream_id)
        return str(status["last_event_id"]) if status["text"] else None

    cursor = await traced.eventually(has_text)
    traced.workers[0].stop()
    traced.workers[0].start()

    async def is_taken_over() -> bool:
        return (await traced.field(stream_id, "attempt")) == "2"

    await traced.eventually(is_taken_over, timeout_s=90)
    async with traced.http.stream(
        "GET", f"{traced.url}/chat/stream/{stream_id}", headers={"Last-Event-ID": cursor}
    ) as answer:
        assert answer.status_code == 200
    await traced.http.post(f"{traced.url}/chat/{stream_id}/cancel")
    await traced.eventually(lambda: traced.field(stream_id, "ended"))
    resumed = "GET /chat/stream/{stream_id}"
    found = await trace_of(traced, collector, stream_id, "POST /chat", resumed, "generate")
    assert found[resumed][0].parent_id == found["POST /chat"][0].span_id
    assert "resume" in found[resumed][0].events
    (taken_over,) = found["generate"]  # the earlier one died with its worker
    assert taken_over.events["takeover"] == {"headrace.attempt": 2}


def test_disabled_tracing_does_not_load_opentelemetry() -> None:
    look = (
        "import sys, gateway.main, workers.main; print([m for m in sys.modules if m.startswith('opentelemetry.sdk')])"
    )
    loaded = subprocess.run([sys.executable, "-c", look], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"


@pytest.mark.parametrize("process", ["gateway", "worker"])
def test_traces_without_opentelemetry_stop_the_start(process: str, tmp_path: Path) -> None:
    """Simulates an installation without the extra otel."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['opentelemetry.sdk'] = None\n")
    environment = {
        "PYTHONPATH": str(tmp_path),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "HEADRACE_REDIS_URL": "redis://127.0.0.1:1/0",
        "HEADRACE_SECRET": SECRET,
        "HEADRACE_PORT": "0",
    }
    left = subprocess.run(
        [sys.executable, "-m", "headrace", process],
        env=os.environ | environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert left.returncode == 2
    assert "headrace[otel]" in left.stderr
    assert "Traceback" not in left.stderr


# --- logs


async def test_the_lines_of_a_request_and_of_its_stream_share_ids(traced: System) -> None:
    traced.fake.play("echoes", Answer(deltas=("canary-answer ", "more"), delay_s=0.01))
    answer = await traced.http.post(
        f"{traced.url}/chat", json=ask("echoes", "canary-prompt"), headers={"X-Request-Id": "my-own.id"}
    )
    stream_id = answer.json()["stream_id"]
    assert answer.headers["x-request-id"] == "my-own.id"
    await traced.ended(stream_id)
    log, of_worker = traced.gateways[0].log, traced.workers[0].log
    request = await line_of(traced, log, event="request", stream_id=stream_id, method="POST")
    ended = await line_of(traced, of_worker, event="stream ended", stream_id=stream_id)
    for line in (request, ended):
        assert (line["request_id"], line["principal"]) == ("my-own.id", "jwt:alice")
        assert line["level"] == "info"
        assert line["time"].endswith("Z")
    assert (
        request["trace_id"] == ended["trace_id"] == (await traced.field(stream_id, "traceparent") or "").split("-")[1]
    )
    assert (request["path"], request["status"]) == ("/chat", 202)
    assert (ended["provider"], ended["model"], ended["finish_reason"]) == ("openai", "echoes", "stop")
    assert 0 <= ended["queued_s"] <= ended["first_token_s"] <= ended["duration_s"]
    assert ended["output_tokens"] > 0


async def test_a_start_line_has_the_version(traced: System) -> None:
    for process in (*traced.gateways, *traced.workers):
        started = lines(process.log, version=VERSION)
        assert {line["level"] for line in started} == {"info"}


async def test_a_line_has_the_paths_template_and_request_ids_cannot_forge_lines(traced: System) -> None:
    forged = {"X-Request-Id": 'x","level":"error'}
    answer = await traced.http.get(f"{traced.url}/chat/{'0' * 34}?a=canary-query", headers=forged)
    request_id = answer.headers["x-request-id"]
    line = await line_of(traced, traced.gateways[0].log, event="request", request_id=request_id)
    assert (line["path"], line["status"], line["stream_id"]) == ("/chat/{stream_id}", answer.status_code, "0" * 34)
    for path, template in (("/chat/canary-query", "/chat/{stream_id}"), ("/canary-query/x", None)):
        answer = await traced.http.get(traced.url + path)
        request_id = answer.headers["x-request-id"]
        line = await line_of(traced, traced.gateways[0].log, event="request", request_id=request_id)
        assert (line["status"], line.get("path"), "stream_id" in line) == (404, template, False)


async def test_no_log_and_no_trace_has_private_content(traced: System, collector: Collector) -> None:
    """Holds for requests that are answered, refused, failed, resumed by a ticket, cancelled, or have a key."""
    key = await make_key(traced, "carol")
    traced.fake.play("echoes", Answer(deltas=("canary-answer ",) * 20, delay_s=0.01))
    traced.fake.play("fails", Answer(raw=b"data: canary-error canary-prompt\n\n"))
    traced.fake.play("cut", Answer(deltas=("canary-answer ",) * 3, end="reset"))
    private = {"metadata": {"m": "canary-metadata"}}
    ids = []
    for model in ("echoes", "fails", "cut"):
        body = ask(model, "canary-prompt", **private)
        answer = (await traced.http.post(f"{traced.url}/chat", json=body, headers=bearer(key))).json()
        ids.append(answer["stream_id"])
        ticket = answer["stream_url"].partition("ticket=")[2]
        for path in (answer["stream_url"], f"{answer['status_url']}?ticket={ticket}"):
            assert (await traced.http.get(traced.url + path)).status_code in {200, 204}
    for content in (b'{"canary-prompt', b'{"model":"echoes","messages":"canary-prompt","canary-metadata":1}'):
        assert (await traced.http.post(f"{traced.url}/chat", content=content)).status_code in {400, 422}
    await traced.http.get(f"{traced.url}/chat", headers={"Authorization": "Bearer canary-key"})
    for stream_id in ids:
        await traced.eventually(lambda: traced.field(stream_id, "ended"))  # noqa: B023  awaited at once
        await line_of(traced, traced.workers[0].log, event="stream ended", stream_id=stream_id)
        await trace_of(traced, collector, stream_id, "POST /chat", "generate")
    seen = "".join(path.read_text() for path in traced.folder.glob("*.log")).encode() + b"".join(collector.bodies)
    for secret in (*CANARIES, key, key.split("-", 2)[-1], JWT_SECRET, ticket):
        assert secret.encode() not in seen, secret


async def test_log_format_text_writes_plain_lines(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, log_format="text")
    await system.ended(await system.post("echo", "one"))
    await system.eventually(lambda: _has(system.workers[0].log, "stream ended"))
    assert lines(system.workers[0].log) == []
    assert "finish_reason=stop" in system.workers[0].log.read_text()


async def _has(log: Path, words: str) -> bool:
    return words in log.read_text()
