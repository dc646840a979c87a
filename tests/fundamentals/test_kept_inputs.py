"""The memory of WebSockets for inputs that are stored nowhere: its budget, and the order of what it forgets."""

import json

from gateway.api.response_sockets.kept_inputs import INPUT_BYTES, KeptInput, KeptInputs, continued


def an_input(size: int, before: KeptInput | None = None) -> KeptInput:
    """Return an input that counts for ``size`` bytes."""
    return KeptInput(before, b"x" * (size - INPUT_BYTES))


def test_the_connection_that_was_used_longest_ago_is_forgotten_first() -> None:
    inputs = KeptInputs(40_000)
    first, second, third, fourth, fifth = [inputs.connection() for _ in range(5)]
    for connection in (first, second, third, fourth):
        connection.keep("a", an_input(8_000))
    first.keep("b", an_input(2_000))  # used again
    fifth.keep("a", an_input(10_000))
    assert second.find("a") is None
    assert all(connection.find("a") for connection in (first, third, fourth, fifth))
    for connection in (first, third, fourth, fifth):
        connection.forget()
    fifth.keep("a", an_input(10_000))  # nothing is counted twice
    first.keep("a", an_input(10_000))
    assert fifth.find("a")
    assert first.find("a")


def test_a_connection_has_a_quarter_at_most() -> None:
    inputs = KeptInputs(40_000)
    large, small = inputs.connection(), inputs.connection()
    small.keep("a", an_input(10_000))
    large.keep("a", an_input(6_000))
    large.keep("b", an_input(4_100, large.find("a")))
    assert (large.find("a"), large.find("b"), large.size) == (None, None, 0)
    assert small.find("a")
    small.drop("a")
    assert small.size == 0


def test_inputs_without_items_count_too() -> None:
    connection = KeptInputs(40 * INPUT_BYTES).connection()
    for number in range(10):
        connection.keep(f"r{number}", KeptInput(connection.find(f"r{number - 1}"), b""))
        connection.keep(f"r{number}", KeptInput(connection.find(f"r{number - 1}"), b""))  # counted once
    assert connection.find("r9")
    connection.keep("r10", KeptInput(connection.find("r9"), b""))
    assert connection.size == 0


def test_items_of_a_stored_response_before_an_input_count_too() -> None:
    kept = KeptInput(None, b'{"b":1}').after([{"a": 1}])
    assert b",".join(kept.chain()) == b'{"a":1},{"b":1}'
    connection = KeptInputs(1 << 20).connection()
    connection.keep("r", kept)
    assert connection.size == INPUT_BYTES + len(b'{"a":1},{"b":1}')
    assert KeptInput(None, b"").after([{"a": 1}]).items == b'{"a":1}'


def test_a_body_gets_the_whole_conversation() -> None:
    body, first = continued(b'{"model": "m", "input": "hi"}', None, [])
    assert body == b'{"model": "m", "input": "hi"}'
    answer = [{"type": "message", "role": "assistant", "content": "yo"}]
    body, second = continued(
        b'{"input": [{"role": "user", "content": "more"}], "previous_response_id": "resp_1"}', first, answer
    )
    question = {"type": "message", "role": "user", "content": "hi"}
    whole = [question, *answer, {"role": "user", "content": "more"}]
    assert json.loads(body) == {"input": whole}
    body, third = continued(b'{"model": "m"}', second, [])
    assert json.loads(body)["input"] == whole
    assert b"".join(third.chain()).count(b'"hi"') == 1
    body, _ = continued(b'{"model": "m", "input": 5, "previous_response_id": "resp_2"}', third, [])
    assert json.loads(body) == {"model": "m", "input": 5}
