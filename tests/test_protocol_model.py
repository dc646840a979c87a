"""The rules of docs/protocol-rules.md in small configurations of the model, and the protocol without one of them."""

import pytest

from tests.protocol_model.configurations import FIRST_DRAFT, RESETS, RESUMED, SMALL, WITHOUT
from tests.protocol_model.search import explore


@pytest.mark.parametrize("name", SMALL)
def test_the_rules_hold_in_every_order_of_steps_and_faults(name: str) -> None:
    result = explore(SMALL[name])
    assert result.holds, (result.violations, result.stuck, result.two_answers)
    assert result.states > 1000


@pytest.mark.parametrize("name", ["S1", "S2", "S3", "S4", "S5", "S7"])  # the others take a minute together
def test_a_successor_continues_the_log(name: str) -> None:
    result = explore(RESUMED[name])
    assert result.holds, (result.violations, result.stuck, result.two_answers)


def test_no_reader_is_reset_while_its_worker_lives() -> None:
    assert explore(RESETS["P1d"]).holds


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("B2e", {"I3", "I6"}),  # two attempts share an epoch, and an event id stands for two events
        ("B2f", {"I1", "I3", "I6"}),  # and a client that relies on the stored flag shows a mix of two answers
    ],
)
def test_the_first_draft_breaks_after_a_rollback(name: str, kinds: set[str]) -> None:
    assert set(explore(FIRST_DRAFT[name]).violations) == kinds


@pytest.mark.parametrize(
    ("name", "finds"),
    [
        ("without-A5", "P1"),
        ("without-E1", "I3"),
        ("without-E3", "stuck"),
        ("without-E3-guard", "I3"),
        ("without-E4", "I6"),
        ("without-E6", "two answers"),
        ("without-E7", "P1"),
        ("without-E13", "I1"),
        ("without-R4", "a reader got 404 although a worker holds the stream"),
    ],
)
def test_without_one_rule_the_protocol_breaks(name: str, finds: str) -> None:
    result = explore(WITHOUT[name], stops_at_first=finds.isupper())
    assert finds in {*result.violations, *result.stuck, *(["two answers"] if result.two_answers else [])}
