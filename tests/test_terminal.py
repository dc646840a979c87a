"""Control characters of a model, a provider or a user never reach a terminal; a pipe gets the answer unchanged."""

import asyncio
import contextlib
import json
import logging
import os
import pty
import re
import sys

import pytest

from shared.logs import configure_logging
from shared.printable import escaped_json, one_line, printable
from tests.cli import (
    ROOT,
    ScriptedGateway,
    accepted,
    ask,
    done,
    environment,
    event,
    refusal,
    scripted,
    start,
    stream,
    token,
)

#: They set the clipboard and the title, clear the screen, overwrite the line, and reorder the text.
ATTACKS = (
    "\x1b]52;c;cm0gLXJm\x07 \x1b]0;pwned\x07 \x1b[2J \r overwritten \x08\x08 "
    "\x9b2J \x7f \u202egnp.exe\u2066 \x00\x0b\x0c"
)
UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


async def on_terminal(*arguments: str) -> str:
    """Run the command with stdout and stderr on a terminal, and return all that the terminal gets."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace", *arguments),
        cwd=ROOT,
        env=environment(NO_COLOR="1", TERM="dumb"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)

    def read_all() -> bytes:
        read = b""
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while piece := os.read(ours, 65_536):
                read += piece
        return read

    try:
        output = await asyncio.wait_for(asyncio.to_thread(read_all), 60)
        await asyncio.wait_for(process.wait(), 30)
    finally:
        os.close(ours)
    return output.decode().replace("\r\n", "\n")  # the terminal driver's own line ends


def hostile_answer() -> bytes:
    called = event(
        "tool_call",
        "3-4",
        index=0,
        arguments=json.dumps({ATTACKS: ATTACKS}),
        id=ATTACKS,
        name=f"{ATTACKS}\nerror: forged",
        complete=True,
        n=1,
    )
    refused = event("refusal", "3-5", text=ATTACKS, index=0, n=1)
    failed = event("error", "3-6", code=ATTACKS, message=ATTACKS, retryable=False)
    return stream(
        start(),
        token("3-2", ATTACKS),
        token("3-3", "\ud800 é\n\tend"),
        called,
        refused,
        failed,
        done("3-7", ATTACKS, ATTACKS),
    )


async def test_a_hostile_answer_on_a_terminal() -> None:
    async with scripted(accepted(), hostile_answer()) as gateway:
        shown = await on_terminal("chat", "Hi", "--url", gateway.url)
    assert UNSAFE.findall(shown) == []
    assert "\r" not in shown
    assert "é\n\tend" in shown.expandtabs(8).replace("        end", "\tend")
    for part in ("tool call: ", "refusal: ", "error: "):
        assert part in shown
    assert "\nerror: forged" not in shown


async def test_a_reason_for_a_silence_is_told_again_after_output() -> None:
    lost = event("waiting", state="worker_lost", position=None, workers=1)
    answer = stream(start(), token("3-2", "One"), lost, lost, token("3-3", "two"), lost, done("3-4"))
    async with scripted(accepted(), answer) as gateway:
        shown = await on_terminal("chat", "Hi", "--url", gateway.url)
    assert shown.count("its worker was lost") == 2


async def test_hostile_json_on_a_terminal() -> None:
    values = (
        event("json", "3-2", path=[ATTACKS], value=ATTACKS, complete=True),
        event("json", "3-3", path=[], value={ATTACKS: ATTACKS}, complete=True),
    )
    async with scripted(accepted(), stream(start(), *values, done("3-4"))) as gateway:
        shown = await on_terminal("chat", "Hi", "--url", gateway.url, "--json")
    assert "pwned" in shown
    assert UNSAFE.findall(shown) == []


async def test_a_hostile_refusal_on_a_terminal() -> None:
    async with scripted(refusal(400, ATTACKS, ATTACKS, retryable=False)) as gateway:
        shown = await on_terminal("chat", "Hi", "--url", gateway.url)
    assert "pwned" in shown
    assert UNSAFE.findall(shown) == []


async def test_a_pipe_gets_the_answer_unchanged_and_notes_are_filtered() -> None:
    async with scripted(accepted(), hostile_answer()) as gateway:
        ended = await ask(gateway.url)
    assert ended.out == f"{ATTACKS}\ufffd é\n\tend"
    assert "pwned" in ended.err
    assert UNSAFE.findall(ended.err) == []
    assert "\r" not in ended.err


def overview() -> bytes:
    process = {
        "id": ATTACKS,
        "host": f"[red]{ATTACKS}",
        "streams": 0,
        "slots": 1,
        "readers": 0,
        "lag_s": 0,
        "draining": False,
    }
    seen = {
        "at": ATTACKS,
        "live": 0,
        "waiting": 0,
        "oldest_waiting_s": 0,
        "taken_per_s": 0,
        "redis": {"used_bytes": 0, "limit_bytes": 0, "stream_bytes": 0},
        "workers": [process],
        "gateways": [process],
        "failures": {ATTACKS: 3},
        "counted_over_s": 60,
        "left_alone": [ATTACKS],
    }
    body = json.dumps(seen).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("answer", [overview(), refusal(403, "no", ATTACKS, retryable=False)])
async def test_a_hostile_overview_on_a_terminal(answer: bytes) -> None:
    gateway: ScriptedGateway
    async with scripted(answer) as gateway:
        shown = await on_terminal("top", "--url", gateway.url, "--once")
    assert "pwned" in shown
    assert UNSAFE.findall(shown) == []


@pytest.mark.parametrize("form", ["json", "text"])
def test_log_lines_have_no_control_characters(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    try:
        configure_logging("info", form)  # type: ignore[arg-type]
        fields = {"model": ATTACKS, "fields": [{ATTACKS: ATTACKS}]}
        try:
            int(ATTACKS)
        except ValueError:
            logging.getLogger("gateway").exception("failed", extra=fields)
    finally:
        root.handlers = handlers
        root.setLevel(level)
    written = capsys.readouterr().err
    assert "pwned" in written
    assert UNSAFE.findall(written.replace("\n", "")) == []
    if form == "json":
        assert json.loads(written)["model"] == ATTACKS


def test_safe_text_is_unchanged() -> None:
    for text in ("", "a\tb\nc", "Bérn ☃ 👩\u200d👧 \u200f\u05e9\u05dc\u05d5\u05dd\u200e", "\u00a0"):
        assert printable(text) == text
    assert printable("a\r\nb") == "a\nb"
    assert one_line("a  b \r\n\t c\td\ne") == "a  b c d e"
    spaces = " " * 300_000  # minutes, if the time were quadratic
    assert one_line(spaces + "x") == spaces + "x"
    assert json.loads(escaped_json(json.dumps(ATTACKS, ensure_ascii=False))) == ATTACKS
