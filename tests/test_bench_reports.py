"""Reports of the benchmarks: the table of targets, and the page that shows them."""

from bench.distance import distance_table
from bench.goal_table import goal_table
from bench.goals import GOALS, plan
from bench.page import PAGES, filled
from bench.results import Record
from bench.shapes import SHAPES
from bench.stream import Stream, Wanted
from bench.tally import Tally
from bench.targets import registry


def test_each_target_names_a_shape_and_systems_that_exist() -> None:
    assert set(plan()) <= set(SHAPES)
    assert {name for names in plan().values() for name in names} <= set(registry.NAMES)


def test_a_target_is_met_by_the_ratio_of_the_same_rounds() -> None:
    (goal,) = (goal for goal in GOALS if goal.shape == "100x30")
    ours, others = (50.0, 100.0, 90.0), (100.0, 200.0, 90.0)
    records = [
        Record(goal.shape, target, number, {goal.figure: value})
        for target, values in (("headrace", ours), ("resumable_stream", others))
        for number, value in enumerate(values, 1)
    ]
    row = goal_table(records, [goal]).splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")[5:8]] == ["0.50", "0.50 0.50 1.00", "yes"]


def test_a_target_that_failed_shows_its_error() -> None:
    (goal,) = (goal for goal in GOALS if goal.shape == "kept")
    assert "did not start" in goal_table([Record("kept", "headrace", 1, {}, "did not start")], [goal])
    assert "not measured" in goal_table([], [goal])


def test_a_distance_costs_what_is_above_loopback() -> None:
    records = [
        Record("1x30", target, 1, {"latency_p50_ms": ms})
        for target, ms in (("headrace", 2.0), ("headrace_25ms", 32.0))
    ]
    rows = distance_table(records).splitlines()
    assert [row.split("|")[3].strip() for row in (rows[2], rows[-1])] == ["2.0", "32.0 = 2.0 + 1.20 round trips"]


def test_repeated_text_after_its_end_is_not_counted() -> None:
    """The Responses dialect repeats the whole text in its last events."""
    tally = Tally()
    stream = Stream(b"", Wanted(b"END", 2, b"event: done"), tally, lambda: None, lambda: None)
    body = [b"000000:0000000000001 ", b"000001:0000000000002 event: do", b"ne 000000:0000000000001 000001:", b"END"]
    stream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % sum(map(len, body)))
    for part in body:
        stream.data_received(part)
    assert (tally.ok, tally.tokens, tally.duplicates, tally.gaps) == (1, 2, 0, 0)


def test_the_pages_have_the_tables_of_the_reports() -> None:
    for page in PAGES:
        assert filled(page.read_text()) == page.read_text(), f"{page.name}: not as reported; run python -m bench.page"
