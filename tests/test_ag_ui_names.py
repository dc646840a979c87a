"""Names and cursors of AG-UI runs as clients may send them: a run is found under any name that may start it, and what
no gateway has sent as a cursor is refused with the problem."""

import socket
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from gateway.dialects.ag_ui.cursor import parse_cursor
from shared.errors import InvalidLastEventId
from tests.fakes.answer import Answer
from tests.responses import code_of
from tests.system import System
from tests.test_ag_ui import frames_of, message_of, read, run, run_input, text_of

NAMES = [
    "a/b",
    "/",
    "a//b/",
    "a?b=c",
    "a#b",
    "100%",
    "%2F",
    "%zz",
    "a b+c",
    "ü水😀",
    "a/cancel",
    "x" * 256,
    '"\\',
    "a:b;c",
]


@pytest.fixture
async def settled(system: System) -> System:
    """A system that knows which runs it has: right after the start of Redis, a run may have been lost."""

    async def knows() -> bool:
        return (await read(system, "none")).status_code == 404

    await system.eventually(knows, timeout_s=60)
    return system


async def raw_get(system: System, path: str) -> int:
    """Send a path as it is, which clients would change, and return the status."""
    where = urlsplit(system.url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=60) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n\r\n".encode())
        return int(connection.recv(4096).split()[1])


@pytest.mark.parametrize("name", NAMES)
async def test_a_run_is_found_under_any_name(settled: System, name: str) -> None:
    settled.fake.play("ag-name", Answer(deltas=("Hello", " you")))
    thread = f"thread of {name}"[:256]
    whole = await run(settled, run_input(name, "ag-name") | {"threadId": thread})
    assert (whole[0].data["runId"], whole[0].data["threadId"]) == (name, thread)
    url, query = f"{settled.gateways[1].url}/ag-ui/runs/{quote(name, safe='')}", {"threadId": thread}
    again = frames_of(await settled.http.get(url, params=query, headers={"Last-Event-ID": str(whole[2].id)}))
    assert again == whole[3:]
    assert text_of(frames_of(await settled.http.get(url, params=query))) == "Hello you"
    assert (await settled.http.get(url, params={**query, "last_event_id": str(whole[-1].id)})).status_code == 204
    assert code_of(await settled.http.get(url, params={"threadId": "another"})) == (404, "stream_not_found")
    assert (await settled.http.post(f"{url}/cancel", params=query)).status_code == 202
    assert (await settled.http.delete(url, params=query)).status_code == 204
    assert (await settled.http.get(url, params=query)).status_code == 410


@pytest.mark.parametrize("name", ["", "x" * 257, "\x00", "a\x00b", "a\nb", "\x7f", 7, None, ["a"]])
@pytest.mark.parametrize("field", ["runId", "threadId"])
async def test_a_name_that_no_run_can_have_is_refused(system: System, field: str, name: Any) -> None:
    refused = await system.http.post(f"{system.url}/ag-ui", json={**run_input("ag-bad", "ag-name"), field: name})
    assert refused.status_code == 422, refused.text
    assert field in message_of(refused)


@pytest.mark.parametrize("path", ["", "/", "%00", "x" * 5000, "%ff", "%ED%A0%80", "..%2F..%2Fmetrics", ".", ".."])
async def test_a_name_of_no_run_is_not_found(settled: System, path: str) -> None:
    assert await raw_get(settled, f"/ag-ui/runs/{path}?threadId=t") in {404, 422}
    assert await raw_get(settled, f"/ag-ui/runs/none?threadId={path or '%00'}") in {404, 422}


FORGED = [
    *("5-3.0", "5-0.2", "5-0.end", "0-0.0", "0-0.3", "0-0.end", "0-4.1"),
    *("5-3.1~5!%", "5-3.1~5!%f", "5-3.1~5!%zz", "5-3.1~5!%FF", "5-3.1~5!%ED%A0%80", "5-3.1~5s0", "5-3.1~5r01"),
    *(
        "9" * 16 + "-1.1",
        "5-" + "9" * 16 + ".1",
        "5-3." + "9" * 10,
        "5-3.1~" + "9" * 16,
        "-5-3.1",
        "5--3.1",
        "5-3.-1",
    ),
    *(
        "5-3.1 ",
        " 5-3.1",
        "5-3.1\n",
        "\uff15-3.1",
        "5-3",
        "5",
        "x",
        "null",
        "NaN",
        "1e3-1.1",
        "0x5-3.1",
        "5-3.1~5" + "!a" * 9 + "!",
    ),
]


@pytest.mark.parametrize("cursor", FORGED)
def test_a_forged_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidLastEventId):
        parse_cursor(cursor)


async def test_a_cursor_that_is_refused_starts_and_reads_nothing(system: System) -> None:
    system.fake.play("ag-forged", Answer())
    whole = await run(system, run_input("ag-forged", "ag-forged"))
    url = f"{system.url}/ag-ui/runs/ag-forged"
    for cursor in ("0-0.end", "5-3.1~5!%FF", "9" * 4000, "x" * 4000):
        for answer in (
            await system.http.get(url, params={"threadId": "t"}, headers={"Last-Event-ID": cursor}),
            await system.http.get(url, params={"threadId": "t", "last_event_id": cursor}),
            await system.http.post(
                f"{system.url}/ag-ui", json=run_input("ag-none", "ag-forged"), headers={"Last-Event-ID": cursor}
            ),
        ):
            assert code_of(answer) == (400, "invalid_last_event_id"), answer.text
            assert "send the id of the last event received" in message_of(answer)
    assert len([call for call in system.fake.calls if call.model == "ag-forged"]) == 1
    beyond = f"{'9' * 15}-{'9' * 15}.999999999"
    got = frames_of(await system.http.get(url, params={"threadId": "t"}, headers={"Last-Event-ID": beyond}))
    assert text_of(got) == text_of(whole)
