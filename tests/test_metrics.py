"""Metrics cover all processes, and every dashboard query and alert uses existing series."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from shared.version import VERSION
from tests.conftest import StartSystem
from tests.fakes.answer import Answer, Counts
from tests.ports import free_port
from tests.prometheus import Metrics, missing_in, prometheus, promtool, slo_rules_in
from tests.system import REPOSITORY, Process, System

DEPLOY = REPOSITORY / "deploy"
RULES = [DEPLOY / "prometheus" / name for name in ("alerts.yml", "slo.yml")]
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
PRICES = """
[prices."openai/known"]
currency = "USD"
as_of = 2026-11-01
input = 1
output = 10
"""
WORDS = [f"word{n} " for n in range(100)]
SECRETS = ("prompt-that-nobody-tells", "word1 ")
ANSWERS = 3
REQUESTS = 20


async def metrics_of(system: System, gateway: int = 0) -> Metrics:
    answer = await system.http.get(f"{system.gateways[gateway].url}/metrics")
    assert answer.status_code == 200
    for secret in SECRETS:
        assert secret not in answer.text
    return Metrics(answer.text)


@pytest.fixture(scope="module")
async def busy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Two gateways and two workers that share a metrics folder, after requests of every kind."""
    folder = tmp_path_factory.mktemp("busy")
    (folder / "metrics").mkdir()
    system = System(
        folder,
        providers=("openai",),
        environment={"PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics")},
        concurrency=8,
        cap=64,
        window=16,
        requests_per_minute=REQUESTS,
        lease_s=4,
        provider_retries=1,
        configuration=PRICES,
        budget_day="1000 USD",
        budget_unknown="allow",
    )
    try:
        await system.start()
        await _use(system)
        yield system
    finally:
        await system.stop()


async def _use(system: System) -> None:
    """Produce answers, a resume, a cancel, a failure, a lost worker and a reached limit."""
    play = system.fake.play
    play("known", Answer(deltas=WORDS, usage=Counts(5, len(WORDS), cached=2, cache_write=1, reasoning=3)))
    for _ in range(ANSWERS):
        async with await system.stream("known", SECRETS[0]) as stream:
            frames = await stream.rest()
    begun = next(frame.at for frame in frames if frame.event == "start")  # a busy worker joins all words in one event
    async with await system.read(stream.stream_id, begun, gateway=1) as stream:
        await stream.rest()
    play("odd", Answer(deltas=WORDS, finish_reason="out_of_ideas"))
    await system.ended(await system.post("odd"))
    play("fails", Answer(status=401))
    for _ in range(2):
        await system.ended(await system.post("fails"))
    play("slow", Answer(deltas=lambda _: repeat("on "), delay_s=0.02))
    async with await system.stream("slow", max_tokens=100_000) as stream:
        await system.eventually(lambda: _was_delivered(system))
        await system.http.post(f"{system.url}/chat/{stream.stream_id}/cancel")
        await stream.rest()
    gate = asyncio.Event()
    play("lost", Answer(deltas=WORDS, gate=gate, gate_after=3))
    lost = await system.post("lost")
    await system.eventually(lambda: _has_text(system, lost))  # else its answer would begin, not begin anew
    holder = await system.field(lost, "holder")
    assert holder is not None
    killed = await _worker_of(system, holder.split(".")[0])
    system.workers[killed].signal(signal.SIGKILL)
    await system.workers[killed].wait()
    gate.set()
    await system.ended(lost)
    del system.workers[killed]
    body = {"model": "openai/known", "messages": [{"role": "user", "content": "hi"}]}
    while (answer := await system.http.post(f"{system.url}/chat", json=body)).status_code != 429:
        await system.ended(answer.json()["stream_id"])
    await system.eventually(lambda: _are_counted(system))


async def _are_counted(system: System) -> bool:
    """A worker counts an answer after its end; while it does, the numbers of one answer do not fit together."""
    async with system.broker.client() as client:
        streams = len([key async for key in client.scan_iter(match="hr:*:state")])
    return (await metrics_of(system)).value("gen_ai_server_request_duration_seconds_count") == streams


async def _was_delivered(system: System) -> bool:
    """One append a second is measured up to its reader, so a short answer may end without a measurement."""
    return (await metrics_of(system)).value("headrace_delivery_seconds_count") > 0


async def _has_text(system: System, stream_id: str) -> bool:
    return bool((await system.status(stream_id))["text"])


async def _worker_of(system: System, worker_id: str) -> int:
    seen = (await system.http.get(f"{system.url}/ops/overview")).json()
    (pid,) = [worker["pid"] for worker in seen["workers"] if worker["id"] == worker_id]
    return [worker.pid for worker in system.workers].index(pid)


async def test_any_gateway_exports_the_metrics_of_all_processes_in_the_folder(busy: System) -> None:
    async def complete() -> Metrics | None:
        metrics = await metrics_of(busy, gateway=1)
        return metrics if metrics.value("headrace_worker_slots") == 8 else None

    metrics = await busy.eventually(complete)  # the slots of the worker that was killed are gone
    known: dict[str, str] = {"gen_ai_provider_name": "openai", "gen_ai_request_model": "known"}
    assert metrics.value("gen_ai_server_request_duration_seconds_count", error_type="", **known) >= ANSWERS
    assert metrics.value("gen_ai_server_time_to_first_token_seconds_count", **known) >= ANSWERS
    assert metrics.value("gen_ai_server_time_per_output_token_seconds_count", **known) >= ANSWERS
    tokens = "gen_ai_client_token_usage_sum"
    calls = metrics.value("gen_ai_client_operation_duration_seconds_count", error_type="", **known)
    assert metrics.value(tokens, gen_ai_token_type="output", **known) == calls * len(WORDS)
    assert metrics.value(tokens, gen_ai_token_type="input", **known) == calls * 5
    parts = {"cache_read_input": 2, "cache_write_input": 1, "reasoning_output": 3}
    for part, count in parts.items():
        name = f"gen_ai_client_inference_usage_{part}_tokens_total"
        assert metrics.value(name, gen_ai_token_modality="unknown", **known) == calls * count
    assert metrics.value("headrace_unknown_finish_reasons_total", provider="openai") == 1
    assert metrics.value("headrace_endings_total", finish_reason="stop", reason="other") == 1
    assert metrics.value("gen_ai_client_operation_duration_seconds_count", error_type="provider_auth") == 2
    assert metrics.value("headrace_resumes_total", result="same_epoch") == 1
    assert metrics.value("headrace_cancel_requests_total") == 1
    assert metrics.value("headrace_endings_total", finish_reason="cancelled", reason="cancelled") == 1
    assert metrics.value("headrace_tokens_saved_total") > 900
    assert metrics.value("headrace_takeovers_total") == 1
    assert metrics.value("headrace_restarted_answers_total") == 1
    assert metrics.value("headrace_requests_total", kind="create", outcome="refused") == 1
    assert metrics.value("headrace_requests_total", kind="create", outcome="ok") >= ANSWERS
    assert metrics.value("headrace_requests_total", kind="resume", outcome="ok") >= 1
    for kind in ("create", "resume"):
        assert metrics.value("headrace_requests_total", kind=kind, outcome="failed") == 0
    assert metrics.value("headrace_refusals_total", code="requests_per_minute_exceeded") == 1
    assert metrics.value("headrace_tail_trimmed_events_total") >= 0
    assert metrics.value("headrace_redis_up") == 1
    assert metrics.value("headrace_redis_memory_bytes") > 0
    assert metrics.value("headrace_delivery_seconds_count") > 0
    assert metrics.value("headrace_append_seconds_count") > 0
    assert metrics.value("headrace_event_loop_lag_seconds_count") > 0
    assert metrics.value("headrace_build_info", version=VERSION) == 1


async def test_a_killed_worker_disappears_from_the_metrics(start_system: StartSystem, tmp_path: Path) -> None:
    """The other worker has a port of its own, which exports the whole folder too."""
    (tmp_path / "metrics").mkdir()
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    system = await start_system(gateways=1, workers=1, concurrency=3, environment=environment)
    port = free_port()
    other = Process(
        "other",
        ["worker"],
        system.workers[0].environment | {"HEADRACE_METRICS_PORT": str(port)},
        tmp_path / "other.log",
    )
    system.workers.append(other)
    other.start()

    async def slots() -> float | None:
        with suppress(httpx2.HTTPError):
            answer = await system.http.get(f"http://127.0.0.1:{port}/metrics")
            return Metrics(answer.text).value("headrace_worker_slots")
        return None

    async def are(wanted: int) -> bool:
        return await slots() == wanted

    await system.eventually(lambda: are(6), timeout_s=60)
    system.workers[0].stop()
    await system.eventually(lambda: are(3))


async def test_a_model_that_never_answered_gets_no_label(busy: System) -> None:
    metrics = await metrics_of(busy)
    assert metrics.values("gen_ai_client_operation_duration_seconds_count", "gen_ai_request_model") <= {
        *("known", "lost", "odd", "slow", "other"),
    }
    assert metrics.value("gen_ai_client_operation_duration_seconds_count", gen_ai_request_model="other") >= 2


def queries() -> dict[str, list[str]]:
    """Return the queries of each dashboard."""
    return {
        path.name: [target["expr"] for panel in panels for target in panel.get("targets", [])]
        for path in DASHBOARDS
        for panels in [json.loads(path.read_text())["panels"]]
    }


async def test_every_query_and_rule_names_existing_series(busy: System) -> None:
    metrics = await metrics_of(busy)
    assert set(queries()) == {"headrace.json", "on-call.json", "capacity.json", "costs.json"}
    wanted = [query for each in queries().values() for query in each] + [rule["expr"] for rule in rules()]
    assert {query: found for query in wanted if (found := missing_in(query, metrics))} == {}


async def test_prometheus_answers_every_query_of_the_dashboards(busy: System, tmp_path: Path) -> None:
    """A query without a result is a panel without data."""
    rule_files = [RULES[0], slo_rules_in(tmp_path, RULES[1])]
    with prometheus(tmp_path, busy.url.removeprefix("http://"), rule_files) as url:

        async def empty() -> list[str]:
            found = []
            for query in {query for each in queries().values() for query in each}:
                expression = query.replace("$__rate_interval", "1m").replace(":5m]", ":1s]")
                answer = await busy.http.get(f"{url}/api/v1/query", params={"query": expression})
                assert answer.status_code in {200, 503}, f"{query}: {answer.text}"  # 503: it reads its rules
                if answer.status_code == 503 or not answer.json()["data"]["result"]:
                    found.append(query)
            return found

        async def are_complete() -> bool:
            with suppress(httpx2.TransportError):  # it starts
                return not await empty()
            return False

        try:
            await busy.eventually(are_complete, timeout_s=60)
        except AssertionError:
            assert await empty() == []
            raise


def rules() -> list[dict[str, Any]]:
    """Return all rules, those that record series too."""
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def test_every_alert_fires_and_only_when_it_should() -> None:
    promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    tested = set[str]()
    for name in ("alerts_test.yml", "slo_test.yml"):
        path = DEPLOY / "prometheus" / name
        promtool("test", "rules", path)
        for test in yaml.safe_load(path.read_text())["tests"]:
            tested |= {each["alertname"] for each in test.get("alert_rule_test", []) if each["exp_alerts"]}
    assert tested == {rule["alert"] for rule in alerts()}


def test_objectives_are_in_one_place() -> None:
    objectives = {rule["labels"]["slo"] for rule in rules() if rule.get("record") == "headrace:slo_objective"}
    for kind in ("bad", "all"):
        assert {rule["labels"]["slo"] for rule in rules() if rule.get("record") == f"headrace:slo_{kind}:rate5m"} == (
            objectives
        )


def test_every_alert_has_an_entry_in_the_runbook() -> None:
    runbook = (REPOSITORY / "docs" / "runbook.md").read_text()
    headings = re.findall(r"^## (\w+)$", runbook, re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


async def test_headrace_top_shows_the_processes(busy: System) -> None:
    async def top(*options: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace", "top", "--once", *options),
            cwd=REPOSITORY,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    code, output = await top("--url", busy.url)
    assert code == 0
    seen = (await busy.http.get(f"{busy.url}/ops/overview")).json()
    for process in (*seen["workers"], *seen["gateways"]):
        assert process["id"] in output
    assert re.search(r"slots in use +\d+/\d+ ", output)
    assert re.search(r"Redis +\d+ MB", output)
    code, output = await top("--url", "http://127.0.0.1:1")
    assert (code, "connection refused" in output) == (1, True)
