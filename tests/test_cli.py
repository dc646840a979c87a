"""The command ``headrace chat`` as a process, against a scripted gateway."""

import asyncio
import importlib.metadata
import json
import re
import sys
from pathlib import Path

import pytest

from headrace_client._sse import SseDecoder
from shared.version import VERSION
from tests.cli import (
    ROOT,
    accepted,
    ask,
    done,
    environment,
    event,
    finish,
    headrace,
    json_event,
    lines,
    refusal,
    scripted,
    start,
    stream,
    token,
)
from tests.ports import free_port


async def test_only_the_answer_goes_to_stdout() -> None:
    queued = event("queued", position=1)
    answer = stream(queued, start(), token("3-2", "Hel"), b": ping\n" + token("3-3", "lo\n☃"), done("3-4"))
    async with scripted(accepted(), answer) as gateway:
        ended = await ask(gateway.url, prompt="Hi")
    assert (ended.code, ended.out, ended.err) == (0, "Hello\n☃", "")
    body = json.loads(gateway.requests[0].body)
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert (body["provider"], body["model"]) == ("demo", "demo")
    assert gateway.requests[0].headers["idempotency-key"]


async def test_a_dash_reads_the_prompt_from_stdin_and_a_model_needs_no_provider() -> None:
    async with scripted(accepted(), stream(start(), done("3-2"))) as gateway:
        ended = await ask(gateway.url, "--model", "some-model", prompt="-", stdin="from a pipe")
    assert ended.code == 0
    body = json.loads(gateway.requests[0].body)
    assert body["messages"][0]["content"] == "from a pipe"
    assert body["model"] == "some-model"
    assert "provider" not in body


async def test_a_clean_end_and_a_cut_both_resume_after_the_last_whole_event() -> None:
    half = token("3-4", "never whole")[:-1]
    async with scripted(
        accepted(),
        stream(start(), token("3-2", "one ")),
        stream(token("3-3", "two "), half, whole=False),
        stream(token("3-4", "three"), done("3-5")),
    ) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out) == (0, "one two three")
    assert gateway.lines == ["POST /chat", *["GET /chat/stream/s1"] * 3]
    assert [r.headers.get("last-event-id") for r in gateway.requests] == [None, None, "3-2", "3-3"]


async def test_a_stream_that_had_no_event_yet_is_read_from_its_start() -> None:
    async with scripted(accepted(), stream(whole=False), stream(start(), token("3-2", "x"), done("3-3"))) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out) == (0, "x")
    assert gateway.lines[1:] == ["GET /chat/stream/s1"] * 2
    assert "last-event-id" not in gateway.requests[2].headers


async def test_a_cut_before_any_header_repeats_the_post_with_the_same_key() -> None:
    whole = stream(start(), token("3-2", "x"), done("3-3"))
    async with scripted(b"", b"HTTP/1.1 202 A", accepted(), whole) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out) == (0, "x")
    assert gateway.lines == [*["POST /chat"] * 3, "GET /chat/stream/s1"]
    assert len({r.headers["idempotency-key"] for r in gateway.requests[:3]}) == 1
    assert len({r.body for r in gateway.requests[:3]}) == 1


async def test_an_unavailable_gateway_is_retried() -> None:
    busy = refusal(503, "draining", "leaving", retryable=True, headers="retry-after: 0\r\n")
    page = b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nno"
    async with scripted(busy, page, accepted(), stream(start(), done("3-2"))) as gateway:
        ended = await ask(gateway.url)
    assert ended.code == 0
    assert "draining: leaving; retrying" in ended.err


@pytest.mark.parametrize("option", ["--retry-timeout", "--patience"])
async def test_retries_of_a_begun_stream_end(option: str) -> None:
    async with scripted(accepted(), stream(start(), token("3-2", "x"), whole=False)) as gateway:
        ended = await ask(gateway.url, option, "0.3")
    assert (ended.code, ended.out) == (1, "x")
    assert f"{gateway.url}: peer closed connection" in ended.err
    assert "; retrying for up to 0.3 s" in ended.err
    assert f"error: {gateway.url}: gave up after 0.3 s: " in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("command", [("chat", "Hi"), ("top",)])
async def test_a_first_connection_that_is_refused_ends_at_once_with_the_address(
    command: tuple[str, ...],
) -> None:
    """Only a begun stream is worth a minute of retries."""
    url = f"http://127.0.0.1:{free_port()}"
    ended = await finish(await headrace(*command, HEADRACE_URL=url))
    assert (ended.code, ended.out) == (1, "")
    reason = "connection refused, nothing listens there"
    assert (
        ended.err
        == f"error: {url}: {reason}; start it with headrace up, or set another address with --url or HEADRACE_URL\n"
    )


async def test_url_key_and_model_come_from_the_environment() -> None:
    async with scripted(accepted(), stream(start(), done("3-2"))) as gateway:
        ours = {"HEADRACE_URL": f"{gateway.url}/", "HEADRACE_API_KEY": "the-key", "HEADRACE_MODEL": "some/model"}
        ended = await finish(await headrace("chat", "Hi", **ours))
    assert (ended.code, ended.err) == (0, "")
    assert gateway.requests[0].headers["authorization"] == "Bearer the-key"
    assert json.loads(gateway.requests[0].body)["model"] == "some/model"


async def test_a_reset_is_marked_and_the_answer_restarts() -> None:
    lost = stream(start(), token("3-2", "half an ans"), whole=False)
    again = stream(start("9-1", reset=True), token("9-2", "a whole answer"), done("9-3"))
    async with scripted(accepted(), lost, again) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out) == (0, "half an ansa whole answer")
    assert "[the answer was lost; it restarts from the beginning]" in ended.err


async def test_an_error_event_is_printed_to_stderr() -> None:
    error = event("error", "3-3", code="provider_auth", message="the key is wrong", retryable=False)
    async with scripted(accepted(), stream(start(), token("3-2", "x"), error, done("3-4", "error"))) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out) == (1, "x")
    assert ended.err == "error: provider_auth: the key is wrong\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal(400, "unknown_model", "no worker offers x", retryable=False), "unknown_model: no worker offers x"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope", "HTTP 404"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi", "not a Headrace gateway"),
    ],
)
async def test_a_refusal_is_printed_to_stderr_and_not_retried(answer: bytes, message: str) -> None:
    async with scripted(answer) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out) == (1, "")
    assert message in ended.err
    assert len(gateway.requests) == 1


async def test_an_early_end_is_reported() -> None:
    async with scripted(accepted(), stream(start(), done("3-2", "length"))) as cut_short:
        length = await ask(cut_short.url)
    async with scripted(accepted(), stream(start(), done("3-2", "cancelled", "abandoned"))) as cancelled:
        cancel = await ask(cancelled.url)
    assert (length.code, length.err) == (0, "the answer ended early: length\n")
    assert (cancel.code, cancel.err) == (1, "the answer ended early: cancelled (abandoned)\n")


@pytest.mark.parametrize(
    "arguments", [("--url", "localhost:8000"), ("--provider", "openai"), ("--retry-timeout", "-1")]
)
async def test_wrong_options_are_usage_errors(arguments: tuple[str, ...]) -> None:
    ended = await finish(await headrace("chat", "Hi", *arguments))
    assert ended.code == 2
    assert arguments[0] in ended.err


@pytest.mark.parametrize("command", [("chat", "Hi"), ("top",)])
@pytest.mark.parametrize("key", ["hr-gehe\nim", "hr-gehé"])
async def test_an_invalid_key_is_reported_and_not_shown(command: tuple[str, ...], key: str) -> None:
    ended = await finish(await headrace(*command, HEADRACE_API_KEY=key))
    assert ended.code == 2
    assert "HEADRACE_API_KEY" in ended.err
    assert "geh" not in ended.err


@pytest.mark.parametrize("body", [b"[1]", b'{"error": "no"}', b'{"workers": []}', b"null", b"<html>"])
@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found"])
async def test_top_of_something_that_is_not_a_gateway(status: bytes, body: bytes) -> None:
    answer = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
    async with scripted(answer) as other:
        ended = await finish(await headrace("top", "--once", "--url", other.url))
    assert (ended.code, ended.out) == (1, "")
    problem = f"{other.url}: not a Headrace gateway (HTTP {status[:3].decode()})"
    assert ended.err == f"error: {problem}; check --url or HEADRACE_URL\n"


# --- JSON, tools, refusals


async def test_json_comes_as_lines_the_whole_last_and_no_text() -> None:
    whole = {"a": [1, "zwölf"], "b": "two\nlines"}
    answer = stream(
        start(),
        token("3-2", '{"a": [1, "zwölf"], "b": "two\\nlines"}'),
        json_event("3-3", ["a", 0], 1),
        json_event("3-4", ["a"], [1, "zwölf"]),
        json_event("3-5", [], whole),
        done("3-6"),
    )
    async with scripted(accepted(), answer) as gateway:
        ended = await ask(gateway.url, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert lines(ended.out) == [(["a", 0], 1), (["a"], [1, "zwölf"]), ([], whole)]
    assert ended.out.splitlines()[1] == '{"path":["a"],"value":[1,"zwölf"]}'
    assert json.loads(gateway.requests[0].body)["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(("file", "name"), [("my recipe.v2.json", "my_recipe_v2"), ("ü" * 80, "_")])
async def test_a_schema_is_sent_under_the_name_of_its_file(tmp_path: Path, file: str, name: str) -> None:
    schema = {"type": "object", "properties": {"ä": {"type": "string"}}}
    (tmp_path / file).write_text(json.dumps(schema, ensure_ascii=False))
    async with scripted(accepted(), stream(start(), json_event("3-2", [], {}), done("3-3"))) as gateway:
        ended = await ask(gateway.url, "--json-schema", str(tmp_path / file))
    assert ended.code == 0
    sent = json.loads(gateway.requests[0].body)["response_format"]
    assert sent == {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("{oops", "not valid JSON"), ("[1]", "not a JSON object"), ("\xff", "not valid JSON")],
)
async def test_a_schema_that_cannot_be_read_is_a_usage_error(
    tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "schema.json"
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    async with scripted() as gateway:
        ended = await ask(gateway.url, "--json-schema", str(file))
    assert (ended.code, ended.out) == (2, "")
    assert "--json-schema" in ended.err
    assert str(file) in ended.err
    assert message in ended.err
    assert gateway.requests == []


async def test_incomplete_json_is_a_failure() -> None:
    violated = event("error", "3-3", code="schema_violation", message='$.a fails "type"', retryable=True)
    part = json_event("3-2", ["a"], 1)
    async with scripted(accepted(), stream(start(), part, violated, done("3-4", "error"))) as gateway:
        broken = await ask(gateway.url, "--json")
    async with scripted(accepted(), stream(start(), part, done("3-3", "length"))) as gateway:
        short = await ask(gateway.url, "--json")
    assert (broken.code, lines(broken.out)) == (1, [(["a"], 1)])
    assert broken.err == 'error: schema_violation: $.a fails "type"\n'
    assert (short.code, lines(short.out)) == (1, [(["a"], 1)])
    assert short.err == "the answer ended early: length\n"


async def test_json_that_restarts_is_marked_and_lines_stay_whole() -> None:
    lost = stream(start(), json_event("3-2", ["a"], 1), whole=False)
    again = stream(
        start("9-1", reset=True), json_event("9-2", ["a"], 2), json_event("9-3", [], {"a": 2}), done("9-4")
    )
    async with scripted(accepted(), lost, again) as gateway:
        ended = await ask(gateway.url, "--json")
    assert ended.code == 0
    assert lines(ended.out) == [(["a"], 1), (["a"], 2), ([], {"a": 2})]
    assert "\n[the answer was lost; it restarts from the beginning]\n" in ended.err
    assert "\n\n" not in ended.err


async def test_tool_calls_refusals_and_thoughts_stay_out_of_stdout() -> None:
    answer = stream(
        start(),
        event("reasoning", "3-2", text="Hm.", index=0, n=1),
        token("3-3", "Let me see."),
        event("tool_call", "3-4", index=0, id="c", name="get_weather", arguments='{"ci', complete=False, n=1),
        event("tool_call", "3-5", index=0, arguments='ty":\n "Bérn"}', complete=False, n=1),
        event(
            "tool_call",
            "3-6",
            index=0,
            id="c",
            name="get_weather",
            arguments='{"city":\n "Bérn"}',
            complete=True,
            n=0,
        ),
        done("3-7", "tool_calls"),
    )
    async with scripted(accepted(), answer) as gateway:
        called = await ask(gateway.url)
    assert (called.code, called.out) == (0, "Let me see.")
    assert called.err == 'tool call: get_weather {"city":"Bérn"}\n'

    refused = [
        event("refusal", f"3-{n}", text=text, index=n, n=1) for n, text in enumerate(["I can", "not."], start=2)
    ]
    async with scripted(accepted(), stream(start(), *refused, done("3-4", "content_filter", "refusal"))) as gateway:
        ended = await ask(gateway.url)
    assert ended.out == ""
    assert ended.err == "refusal: I cannot.\nthe answer ended early: content_filter (refusal)\n"


async def test_an_empty_answer_is_reported() -> None:
    async with scripted(accepted(), stream(start(), done("3-2", "stop", "empty_answer"))) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out, ended.err) == (0, "", "the answer is empty\n")


async def test_a_closed_pipe_cancels_the_answer() -> None:
    answer = stream(start(), *(token(f"3-{n}", "word " * 1000) for n in range(2, 60)), whole=False)
    async with scripted(accepted(), answer, accepted()) as gateway:
        line = f"'{sys.executable}' -m headrace chat Hi --url {gateway.url} | head -c 3"
        pipe = asyncio.subprocess.PIPE
        shell = await asyncio.create_subprocess_shell(
            line, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe
        )
        ended = await finish(shell)
    assert ended.out == "wor"
    assert "Traceback" not in ended.err
    assert gateway.lines[-1] == "POST /chat/s1/cancel"


def test_the_decoder_takes_a_retry_without_a_blank_line_and_drops_half_an_event() -> None:
    decoder = SseDecoder()
    whole = b"id: 1-2\r\nretry: 7\r\nevent: token\r\ndata: a\r\ndata: b\r\n\r\n: ping\nid: 1-3\n\n"
    events = [found for byte in whole for found in decoder.feed(bytes([byte]))]
    assert [(e.name, e.data, e.id) for e in events] == [("token", "a\nb", "1-2")]
    assert decoder.retry_ms == 7
    assert list(decoder.feed(b"id: 1-4\ndata: half\nretry: 123\nretry: soon\n")) == []
    assert decoder.retry_ms == 123


async def test_help_shows_whole_sentences() -> None:
    ended = await finish(await headrace("--help", COLUMNS="80"))
    commands = ended.out.partition("Commands:\n")[2].splitlines()
    assert len(commands) == 15
    assert all(re.fullmatch(r"  \w+ +[A-Z].*[^.]\.", line) for line in commands)


async def test_the_version_is_printed_and_is_that_of_the_package() -> None:
    ended = await finish(await headrace("--version"))
    assert (ended.code, ended.out, ended.err) == (0, f"headrace {VERSION}\n", "")
    assert importlib.metadata.version("headrace") == VERSION
