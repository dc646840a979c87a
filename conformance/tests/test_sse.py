"""The parser follows the EventSource section of the HTML standard, however its input is cut."""

import pytest

from headrace_conformance.sse import Event, Parser


def parsed(data: bytes, size: int) -> tuple[Parser, list[Event]]:
    parser, events = Parser(), []
    for at in range(0, len(data), size):
        events += parser.feed(data[at : at + size])
    return parser, events


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_blocks_become_events_by_every_line_ending(size: int) -> None:
    lines = [
        "\ufeffid: 1",
        "event: a",
        "data: ä",
        "data:  b",
        "",
        ": note",
        "data",
        "",
        "id",
        "data:x",
        "",
        "data: lost",
    ]
    for end in ("\n", "\r", "\r\n"):
        parser, events = parsed(end.join(lines).encode(), size)
        assert [(event.type, event.data, event.id, event.last_event_id) for event in events] == [
            ("a", "ä\n b", "1", "1"),
            ("message", "", None, "1"),
            ("message", "x", "", ""),
        ]
        assert parser.comments == ["note"]
        assert parser.has_rest


def test_an_id_counts_at_its_blank_line() -> None:
    parser, events = parsed(b"id: 1\ndata: a\n\nid: 2\n", 1)
    assert parser.last_event_id == "1"
    events += parser.feed(b"\n")
    assert [(event.last_event_id, event.is_dispatched) for event in events] == [("1", True), ("2", False)]
    assert parser.last_event_id == "2"


@pytest.mark.parametrize(
    ("data", "oddity"),
    [
        (b"id: a\0b\ndata: x\n\n", "id with NUL before byte 8"),
        (b"data: \xff\n\n", "invalid UTF-8 before byte 8"),
        (b"retry: 1.5\n\n", "retry that is no number before byte 11"),
    ],
)
def test_bytes_that_clients_ignore_are_reported(data: bytes, oddity: str) -> None:
    parser, events = parsed(data, 1)
    assert parser.oddities == [oddity]
    assert (parser.last_event_id, len(events)) == ("", 1)


def test_a_field_without_data_moves_nothing_but_the_retry_time() -> None:
    parser, events = parsed(b"retry: 1000\n: ping\n", 1)
    assert (parser.retry_ms, events, parser.has_rest) == (1000, [], False)
