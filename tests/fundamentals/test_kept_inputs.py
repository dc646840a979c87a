"""The memory of WebSockets for inputs that are stored nowhere: its budget, and the order of what it forgets."""

import json

from gateway.api.response_sockets.kept_inputs import KeptInput, KeptInputs, continued


def test_the_connection_that_was_used_longest_ago_is_forgotten_first() -> None:
    inputs = KeptInputs(400)
    first, second, third, fourth, fifth = [inputs.connection() for _ in range(5)]
    for connection in (first, second, third, fourth):
        connection.keep("a", KeptInput(None, b"x" * 80))
    first.keep("b", KeptInput(None, b"x" * 20))  # used again
    fifth.keep("a", KeptInput(None, b"x" * 100))
    assert second.find("a") is None
    assert all(connection.find("a") for connection in (first, third, fourth, fifth))
    for connection in (first, third, fourth, fifth):
        connection.forget()
    fifth.keep("a", KeptInput(None, b"x" * 100))  # nothing is counted twice
    first.keep("a", KeptInput(None, b"x" * 100))
    assert fifth.find("a")
    assert first.find("a")


def test_a_connection_has_a_quarter_at_most() -> None:
    inputs = KeptInputs(400)
    large, small = inputs.connection(), inputs.connection()
    small.keep("a", KeptInput(None, b"x" * 100))
    large.keep("a", KeptInput(None, b"x" * 60))
    large.keep("b", KeptInput(large.find("a"), b"x" * 41))
    assert (large.find("a"), large.find("b"), large.size) == (None, None, 0)
    assert small.find("a")
    small.drop("a")
    assert small.size == 0


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
