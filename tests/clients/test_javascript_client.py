"""The JavaScript client reads every answer whole and once in Node, wherever and however its connection breaks.

Its ``fetch`` fails with the errors of each browser engine in turn.
"""

import asyncio
import json
import subprocess
import time
from pathlib import Path

import pytest

from shared.version import VERSION
from tests.cli import done, event, refusal, scripted, start, stream, token
from tests.clients.outcomes import run
from tests.clients.replay import LENGTH_OF_START, TEXT, expected, replaying, streams
from tests.clients.test_python_client import SECRET, STARTED, signed
from tests.conformance.node import NODE
from tests.fakes.answer import Answer
from tests.system import REPOSITORY, System

FOLDER = REPOSITORY / "clients" / "javascript"


async def test_an_answer_that_is_cut_at_any_byte_is_read_whole_and_once() -> None:
    ids = streams()
    async with replaying() as replay:
        outcomes = await run("read", url=replay.url, streams=ids)
        assert set(replay.reads.values()) == {1, 2}
    for stream_id, outcome in zip(ids, outcomes, strict=True):
        assert "error" not in outcome, (stream_id, outcome)
        assert outcome["text"] == outcome["shown"] == expected(stream_id), stream_id
        assert outcome["types"][-1] == "done"
        assert len(set(outcome["ids"])) == len(outcome["ids"])


async def test_a_start_whose_response_is_cut_at_any_byte_starts_one_answer() -> None:
    models = [f"{('fin', 'rst')[at % 2]}-{at}" for at in range(LENGTH_OF_START)]
    async with replaying() as replay:
        outcomes = await run("start", url=replay.url, models=models)
        assert {outcome["text"] for outcome in outcomes} == {TEXT}
        assert set(replay.starts.values()) == {2}
        assert {len(keys) for keys in replay.keys.values()} == {1}
        assert len({key for keys in replay.keys.values() for key in keys}) == len(models)


async def test_a_reader_that_leaves_and_comes_back_continues() -> None:
    async with scripted(
        stream(start(), token("3-2", "one "), token("3-3", "never taken "), whole=False),
        stream(token("3-3", "two"), done("3-4")),
    ) as gateway:
        outcome = await run("leave", url=gateway.url, stream="s1")
    assert (outcome["left"], outcome["text"], outcome["again"]) == ("3-2", "one two", [])
    assert [request.headers.get("last-event-id") for request in gateway.requests] == [None, "3-2"]


async def test_an_answer_that_was_read_already_ends_with_its_status() -> None:
    status = b'{"finish_reason": "length", "usage": null}'
    gone = b"HTTP/1.1 204 No Content\r\n\r\n"
    known = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(status), status)
    async with scripted(gone, known) as gateway:
        outcome = await run("attach", url=gateway.url, stream="s1", options={"lastEventId": "3-9"})
    assert (outcome["types"], outcome["done"]["finish_reason"]) == (["done"], "length")


async def test_an_aborted_reading_ends_with_the_reason_of_its_signal() -> None:
    async with scripted(stream(start(), token("3-2", "one "), token("3-3", "two"), done("3-4"))) as gateway:
        outcome = await run("abort", url=gateway.url, stream="s1")
    assert outcome["error"]["name"] == "AbortError"
    assert len(gateway.requests) == 1


async def test_tool_calls_and_json_are_collected_and_a_reset_empties_them() -> None:
    call = event("tool_call", "3-2", index=0, id="c", name="f", arguments="{}", complete=True, n=0)
    value = event("json", "3-3", path=[], value={"a": 1}, complete=True)
    lost = stream(start(), call, value, token("3-4", "x"), whole=False)
    again = stream(start("9-1", reset=True), call.replace(b"3-2", b"9-2"), done("9-3", "tool_calls"))
    async with scripted(lost, again) as gateway:
        outcome = await run("attach", url=gateway.url, stream="s1")
    assert outcome["toolCalls"] == [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert (outcome["text"], outcome["json"]) == ("", None)
    assert outcome["types"].count("reset") == 1


# --- the real system


async def test_a_link_is_read_without_a_key_and_a_cancel_ends_the_stream(system: System) -> None:
    system.fake.play("js-cancel", Answer(deltas=["one ", "two"], gate=asyncio.Event(), gate_after=1))
    other = system.gateways[1].url
    outcome = await run("cancel", url=system.gateways[0].url, model="openai/js-cancel", other=other)
    assert outcome["text"] == outcome["status"]["text"] == "one "
    assert outcome["done"]["finish_reason"] == outcome["status"]["finish_reason"] == "cancelled"


# --- errors


async def test_a_final_refusal_is_thrown_at_once_and_a_passing_one_is_not() -> None:
    busy = refusal(429, "queue_full", "too many", retryable=True, headers="retry-after: 0\r\n")
    wrong = refusal(404, "stream_not_found", "no such stream", retryable=False)
    async with scripted(busy, STARTED, busy, wrong) as gateway:
        (outcome,) = await run("start", url=gateway.url, models=["m"])
    error = outcome["error"]
    assert (error["code"], error["status"], error["retryable"]) == ("stream_not_found", 404, False)
    assert len(gateway.requests) == 4


async def test_a_retry_after_is_waited_for_or_thrown_if_it_is_too_long() -> None:
    soon = refusal(429, "requests_per_minute_exceeded", "wait", retryable=True, headers="retry-after: 1\r\n")
    late = refusal(429, "tokens_per_day_exceeded", "wait", retryable=True, headers="retry-after: 9000\r\n")
    async with scripted(soon, STARTED, late) as gateway:
        began = time.monotonic()
        (outcome,) = await run("start", url=gateway.url, models=["m"])
        assert time.monotonic() - began >= 1
    assert (outcome["error"]["code"], outcome["error"]["retryAfterMs"]) == ("tokens_per_day_exceeded", 9_000_000)


async def test_an_unreachable_gateway_is_an_error_after_the_retries() -> None:
    async with scripted() as gateway:
        pass  # its port is closed now
    options = {"retryTimeoutMs": 50}
    (outcome,) = await run("start", url=gateway.url, key="hr-my-key", models=["m"], options=options)
    assert (outcome["error"]["code"], outcome["error"]["retryable"]) == ("unreachable", True)
    assert "hr-my-key" not in json.dumps(outcome)
    assert "secret" not in json.dumps(outcome)


async def test_another_server_is_an_error_at_first_and_a_fault_of_a_proxy_later() -> None:
    page = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"
    async with scripted(page) as other:
        (outcome,) = await run("start", url=other.url, models=["m"])
        assert outcome["error"]["code"] == "not_headrace"
    begun = stream(start(), token("3-2", "a"), whole=False)
    async with scripted(begun, page, stream(token("3-3", "b"), done("3-4"))) as gateway:
        assert (await run("attach", url=gateway.url, stream="s1"))["text"] == "ab"


async def test_a_wrong_argument_is_refused_and_a_key_is_not_shown() -> None:
    cases: list[dict[str, str]] = [{"key": key} for key in ("hr-gehe\nim", "hr-gehé", "hr geh")]
    cases += [
        {"stream": bad} for bad in ("", "https://example.com/", "../x", "ftp://a/chat/stream/s", "/chat/stream/a b")
    ]
    cases += [{"base": "localhost:8000"}]
    cases += [{"user": user} for user in ("", "a/b", "a,b", "a b", "ä", "u" * 129)]
    outcomes = await run("refused", url="http://localhost:8000", cases=cases)
    named = [outcome["error"]["message"].partition(":")[0] for outcome in outcomes]
    assert named == ["key"] * 3 + ["stream"] * 5 + ["url"] + ["user"] * 6
    assert "geh" not in json.dumps(outcomes)


async def test_the_key_goes_to_its_own_gateway_only() -> None:
    whole = stream(start(), done("3-2"))
    async with scripted(whole) as own, scripted(whole) as other:
        await run("attach", url=own.url + "/", key="hr-k", stream="s1")
        await run("attach", url=own.url, key="hr-k", user="alice", stream=f"{other.url}/chat/stream/s1?ticket=a.b")
    assert own.requests[0].headers["authorization"] == "Bearer hr-k"
    assert "x-headrace-user" not in own.requests[0].headers
    assert not {"authorization", "x-headrace-user"} & other.requests[0].headers.keys()
    assert "ticket=a.b" in other.requests[0].line


# --- webhooks, types


async def test_a_webhook_is_verified() -> None:
    body = '{"type": "stream.completed", "data": {"text": "Grüße"}}'
    headers = signed(body.encode())
    other = "whsec_" + "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"
    several = headers | {"Webhook-Signature": f"v1a,zzz v1,AAAA {headers['Webhook-Signature']}"}
    right: list[dict[str, object]] = [
        {"body": body, "headers": headers, "secret": SECRET},
        {"body": body, "headers": several, "secret": [other, SECRET], "plain": True},
    ]
    forged: list[dict[str, object]] = [
        {"body": body + " ", "headers": headers, "secret": SECRET},
        {"body": body, "headers": headers, "secret": other},
        {"body": body, "headers": headers | {"Webhook-Id": "msg_2"}, "secret": SECRET},
        {"body": body, "headers": headers | {"Webhook-Timestamp": "soon"}, "secret": SECRET},
        {"body": body, "headers": headers | {"Webhook-Signature": "v1,"}, "secret": SECRET},
        {"body": body, "headers": headers | {"Webhook-Signature": "v1,ä"}, "secret": SECRET},
        {"body": body, "headers": {}, "secret": SECRET},
        {"body": body, "headers": signed(body.encode(), at=time.time() - 301), "secret": SECRET},
        {"body": "[]", "headers": signed(b"[]"), "secret": SECRET},
    ]
    outcomes = await run("webhook", cases=[*right, *forged, {**right[0], "secret": "no base64!"}])
    assert [outcome["value"] for outcome in outcomes[:2]] == [json.loads(body)] * 2
    assert {outcome["error"]["name"] for outcome in outcomes[2:-1]} == {"WebhookInvalid"}
    assert outcomes[-1]["error"]["message"] == "secret: not in the form whsec_<base64>"


def test_the_library_has_the_version_of_the_server() -> None:
    assert json.loads((FOLDER / "package.json").read_text())["version"] == VERSION


def test_the_types_are_right_and_are_generated_for_typescript(tmp_path: Path) -> None:
    compiler = FOLDER / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.exists():
        pytest.fail("TypeScript is missing: make .venv/installed-node installs it")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    use = tmp_path / "use.ts"
    use.write_text(
        'import { Headrace, HeadraceError } from "./types/index.js";\n'
        'const client = new Headrace({ url: "http://localhost:8000" });\n'
        'for await (const event of client.start({ model: "m", messages: [] })) {\n'
        '  if (event.type === "token") event.token.length;\n'
        "  // @ts-expect-error: a token event alone has it\n"
        "  event.token;\n"
        '  if (event.type === "done") event.usage?.input_tokens.toFixed();\n'
        "}\n"
        "export const isFinal = (error: unknown) => error instanceof HeadraceError && !error.retryable;\n"
    )
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--noEmit", "--types", ""]
    for arguments in (["--project", str(FOLDER), "--outDir", str(tmp_path / "types")], [*options, str(use)]):
        compiled = subprocess.run(
            [NODE, compiler, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert compiled.returncode == 0, compiled.stdout
