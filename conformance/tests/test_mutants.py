"""The kit passes a server that is right, and finds each fault of a wrong one."""

import asyncio
import os
from collections.abc import Collection, Sequence
from typing import Any, Final, cast, get_args

import pytest

from headrace_conformance import Event, Foreign, Request, Stream, Unit
from headrace_conformance.check import CHECKS, Outcome
from headrace_conformance.cli import main
from headrace_conformance.client import Endpoint, Unreachable
from headrace_conformance.lab import Lab, Options
from headrace_conformance.runner import run_check, run_checks
from plain_profile import Plain
from plain_server import SCRIPTS, Fault, PlainServer

#: Each fault against all checks, not only against those that must find it.
ALL: Final = bool(os.environ.get("HEADRACE_NIGHTLY"))
#: The checks that must fail for each fault; others may fail too.
FOUND_BY: Final[dict[Fault, set[str]]] = {
    "drops an event on resume": {"resume-after-end", "resume-live", "cut-every-byte", "cut-live"},
    "drops the first event after the log": {"late-join"},
    "repeats an event on resume": {"resume-after-end", "resume-live", "cut-every-byte", "cut-live"},
    "numbers anew on resume": {"resume-after-end", "resume-live", "cut-every-byte"},
    "ends twice": {"one-ending"},
    "ends no resumed stream": {"resume-after-end", "cut-every-byte"},
    "sends an id with a heartbeat": {"heartbeat"},
    "garbles characters at chunk borders": {"utf-8"},
    "generates twice for one key": {"idempotent-submit", "idempotent-concurrent"},
    "generates twice for requests at once": {"idempotent-concurrent"},
    "buffers the whole answer": {"no-buffering"},
    "says text/plain": {"content-type"},
    "begins late readers at the newest event": {"late-join", "double-attach"},
    "serves one reader at a time": {"double-attach", "half-open"},
    "trims silently": {"resume-oldest"},
    "ignores unknown cursors": {"foreign-cursor", "foreign-cursor-live"},
    "ends nothing on cancel": {"cancel"},
    "cancels for one reader only": {"cancel"},
    "ends a failure like a success": {"failure"},
    "resets too late": {"foreign-cursor", "reset"},
    "sends an id with NUL": {"framing"},
    "asks for an hour of absence": {"retry"},
    "has every stream": {"unknown-stream"},
    "has nothing left of any stream": {"unknown-stream"},
    "waits for the slowest reader": {"slow-reader"},
    "repeats all to a reader that has the ending": {"resume-at-last"},
    "uses an id for two events": {"resume-after-end"},
    "forgets a stream at its end": {"read-from-start"},
    "breaks off without an ending": {"late-join", "double-attach"},
    "crashes instead of refusing": {"resume-oldest", "unknown-stream"},
}


#: They judge the connections of other checks.
JUDGES: Final = {check.id for check in CHECKS if check.judges_all}


async def outcomes_of(fault: Fault, ids: Collection[str] = ()) -> list[Outcome]:
    """Run the checks with these ids, or all, against a server with a fault."""
    scripts = {script: script for script in SCRIPTS}
    timeout_s = 60 if fault == "none" else 10  # a right server may take any time, on a busy machine
    options = Options("short", "hi", scripts, cuts=60, check_timeout_s=timeout_s)  # type: ignore[arg-type]
    patience_s = 30 if fault == "none" else 3
    async with PlainServer(fault) as server, Endpoint(server.url, patience_s=patience_s) as endpoint:
        checks = [check for check in CHECKS if not ids or check.id in ids]
        return await run_checks(Lab(endpoint, Plain(), options), checks)


async def test_a_right_server_passes_every_check() -> None:
    outcomes = await outcomes_of("none")
    assert [(outcome.check.id, outcome.detail) for outcome in outcomes if outcome.name != "passed"] == []
    assert len(outcomes) == len(CHECKS)


@pytest.mark.timeout(300)
async def test_each_fault_is_found_by_its_check() -> None:
    assert set(FOUND_BY) == set(get_args(Fault)) - {"none"}
    room = asyncio.Semaphore(4)

    async def missed(fault: Fault) -> str | None:
        async with room:
            outcomes = await outcomes_of(fault, () if ALL else FOUND_BY[fault] | {"late-join"} | JUDGES)
        failed = {outcome.check.id for outcome in outcomes if outcome.name == "failed"}
        return None if failed >= FOUND_BY[fault] else f"{fault}: only {sorted(failed)} failed"

    assert [found for found in await asyncio.gather(*map(missed, FOUND_BY)) if found] == []


async def test_an_exception_of_a_profile_is_a_failure_with_its_place() -> None:
    class Wrong(Plain):
        def units(self, event: Event) -> Sequence[Unit]:
            raise KeyError(event.data)

    (check,) = (check for check in CHECKS if check.id == "late-join")
    async with PlainServer() as server, Endpoint(server.url) as endpoint:
        outcome = await run_check(Lab(endpoint, Wrong(), Options("short", "hi")), check)
    assert (outcome.name, outcome.detail) == ("failed", "the profile or the kit raised KeyError")
    assert outcome.evidence[-1].startswith("test_mutants.py:")


async def test_checks_of_foreign_cursors_need_some() -> None:
    class Trusting(Plain):
        def foreign(self, cursors: Sequence[str]) -> list[Foreign]:
            return []

    checks = [check for check in CHECKS if check.id.startswith("foreign-cursor")]
    scripts = {script: script for script in SCRIPTS}
    async with PlainServer() as server, Endpoint(server.url) as endpoint:
        lab = Lab(endpoint, Trusting(), Options("short", "hi", scripts))  # type: ignore[arg-type]
        outcomes = await run_checks(lab, checks)
    assert [outcome.name for outcome in outcomes] == ["not_applicable"] * 2


async def result_of(check: str, profile: Plain, scripts: Collection[str] = SCRIPTS, fault: Fault = "none") -> str:
    """Return the outcome of one check and its detail."""
    chosen = [each for each in CHECKS if each.id == check]
    options = Options("short", "hi", cast(Any, {script: script for script in scripts}))
    async with PlainServer(fault) as server, Endpoint(server.url) as endpoint:
        (outcome,) = await run_checks(Lab(endpoint, profile, options), chosen)
    return f"{outcome.name}: {outcome.detail}"


@pytest.mark.parametrize("check", ["resume-after-end", "resume-at-last", "resume-oldest"])
async def test_a_stream_without_cursors_fails_the_checks_of_cursors(check: str) -> None:
    class Uncounted(Plain):
        def cursor(self, event: Event) -> str | None:
            return None

    assert await result_of(check, Uncounted()) == "failed: no event has a cursor"


async def test_a_stream_without_units_passes_no_comparison() -> None:
    class Empty(Plain):
        def units(self, event: Event) -> Sequence[Unit]:
            return []

    result = await result_of("read-from-start", Empty())
    assert result == "failed: the stream has no units, so that nothing of it can be compared"


@pytest.mark.parametrize("check", ["slow-reader", "cut-live"])
async def test_an_answer_that_is_too_short_for_a_check_does_not_pass_it(check: str) -> None:
    """An endpoint with a model of its own, instead of the kit's provider."""
    result = await result_of(check, Plain(), ["slow"] if check == "slow-reader" else [])
    assert result.startswith("not_applicable: the answer"), result


async def test_a_cancel_without_effect_is_found_without_texts() -> None:
    class Textless(Plain):
        def text(self, event: Event) -> str:
            return ""

    assert (await result_of("cancel", Textless())).startswith("passed")
    assert (await result_of("cancel", Textless(), fault="ends nothing on cancel")).startswith("failed")


async def test_nothing_left_of_a_stream_that_does_not_exist_is_right_where_readers_name_something_else() -> None:
    class OfChats(Plain):
        unknown_is_empty = "readers name a chat"

    result = await result_of("unknown-stream", OfChats(), fault="has nothing left of any stream")
    assert result == "not_applicable: status 204: readers name a chat"
    assert (await result_of("unknown-stream", OfChats())) == "passed: status 404"


@pytest.mark.parametrize("check", ["resume-live", "cut-live"])
async def test_a_check_of_a_live_stream_gives_up(check: str) -> None:
    """A server that is no use must not get requests until the check's time is over."""

    class Lost(Plain):
        def attach(self, stream: Stream, cursor: str | None) -> Request:
            return super().attach(stream, None)  # the beginning, again and again

    scripts = {script: script for script in SCRIPTS}
    chosen = [each for each in CHECKS if each.id == check]
    async with PlainServer() as server, Endpoint(server.url) as endpoint:
        elsewhere = "http://127.0.0.1:1" if check == "cut-live" else None  # nobody listens there
        options = Options("short", "hi", scripts, attach_url=elsewhere)  # type: ignore[arg-type]
        (outcome,) = await run_checks(Lab(endpoint, Lost(), options), chosen)
    assert outcome.name == "failed"
    assert "not finished" not in outcome.detail


async def test_an_endpoint_that_does_not_respond_is_unreachable() -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(ignore, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        async with Endpoint(f"http://127.0.0.1:{port}", patience_s=0.1) as endpoint:
            with pytest.raises(Unreachable, match=r"GET /: no response in 0\.1 s"):
                await endpoint.open(Request("GET", "/"))


async def test_the_provider_gets_no_credentials_of_the_endpoint() -> None:
    heads = list[bytes]()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1")
        writer.close()

    (check,) = (check for check in CHECKS if check.id == "idempotent-concurrent")
    async with PlainServer() as server, await asyncio.start_server(count, "127.0.0.1", 0) as provider:
        port = provider.sockets[0].getsockname()[1]
        options = Options("short", "hi", provider_url=f"http://127.0.0.1:{port}/")
        async with Endpoint(server.url, headers={"Authorization": "Bearer secret"}) as endpoint:
            outcome = await run_check(Lab(endpoint, Plain(), options), check)
    assert outcome.name == "passed", outcome.detail
    assert len(heads) == 1
    assert b"secret" not in heads[0]


@pytest.mark.parametrize("option", ["--cuts=0", "--at-once=0", "--cuts=-1"])
def test_a_run_that_checks_nothing_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--profile", "native", "--url", "http://127.0.0.1:1", option])
    assert "must be a whole number from 1" in capsys.readouterr().err


def test_each_check_finds_a_fault() -> None:
    assert {check.id for check in CHECKS} - set().union(*FOUND_BY.values()) == set()
