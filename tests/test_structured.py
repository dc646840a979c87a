"""A JSON answer reaches every reader value by value and whole, and an answer that breaks its schema is an error."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import Answer
from tests.json_pieces import pieces_of
from tests.provider_client import network
from tests.sse_client import Frame, text_of
from tests.system import System
from workers.providers.base import TextDelta
from workers.writing.structured_output import JsonAnswer


@pytest.mark.parametrize(
    "make",
    [
        lambda n: {"rows": [{"id": i, "name": f"naïve {i}", "price": i * 1.5} for i in range(n)]},
        lambda n: {"text": "x" * 40 * n},
        lambda n: {"text": 'a "quote"\n}' * 5 * n},
        lambda n: {"rows": [1] * 20 * n},
    ],
)
def test_the_cost_of_a_json_answer_is_linear(make: Callable[[int], dict[str, Any]]) -> None:
    """Four times the answer, in 3-character deltas, costs about four times the CPU time; a re-parse for each delta
    would cost 16 times. The limit lies in between, so that a busy machine does not matter."""

    def cost_s(text: str) -> float:
        begun = time.process_time()
        answer = JsonAnswer({"type": "object"}, depth=2)
        for at in range(0, len(text), 3):
            answer.take([TextDelta(text[at : at + 3])])
        answer.finish()
        return time.process_time() - begun

    quarter, whole = json.dumps(make(2000)), json.dumps(make(8000))
    ratios = sorted(cost_s(whole) / cost_s(quarter) for _ in range(5))
    assert ratios[0] < 8


# --- through the whole system

RECIPE = {
    "name": "Rösti",
    "steps": [{"do": "grate\n", "minutes": 5}, {"do": 'fry "well"', "minutes": 20}],
    "serves": 2,
    "note": None,
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "steps": {"type": "array"}, "serves": {"type": "integer"}},
    "required": ["name", "steps"],
}
FORMATS = [
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "recipe", "schema": SCHEMA}},
]


def json_events(frames: list[Frame]) -> list[tuple[list[str | int], Any]]:
    return [(frame.data["path"], frame.data["value"]) for frame in frames if frame.event == "json"]


def cut(text: str, seed: int) -> list[str]:
    """Split the text at random places, also within escapes."""
    rng = random.Random(seed)
    pieces = []
    while text:
        size = rng.randint(1, 9)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


@network
@pytest.mark.parametrize("format_", FORMATS)
async def test_values_stream_from_every_provider(system: System, name: str, format_: dict[str, Any]) -> None:
    text = json.dumps(RECIPE)
    model = f"json-{name}-{format_['type']}"
    system.fake.play(model, Answer(deltas=cut(f"```json\n{text}\n```", 1), delay_s=0.002))
    async with await system.stream(model, provider=name, response_format=format_) as connection:
        frames = await connection.rest()
    assert json_events(frames) == [*pieces_of(RECIPE, 2), ([], RECIPE)]
    assert [f.data["outside"] for f in frames if f.event == "json" and not f.data["path"]] == [10]
    assert text_of(frames) == f"```json\n{text}\n```"
    # No value comes before its text.
    seen = ""
    for frame in frames:
        seen += frame.data["token"] if frame.event == "token" else ""
        if frame.event == "json" and isinstance(frame.data["value"], str):
            assert json.dumps(frame.data["value"]) in seen
    assert frames[-1].data["finish_reason"] == "stop"
    assert frames[-1].data["usage"]["estimated"] is False
    status = await system.status(connection.stream_id)
    assert status["json"] == RECIPE


@network
async def test_a_schema_violation_is_an_error_and_the_text_stays(system: System, name: str) -> None:
    text = '{"name": "x", "steps": "none"}'
    system.fake.play(f"wrong-{name}", Answer(deltas=cut(text, 2), usage=(3, 9)))
    async with await system.stream(f"wrong-{name}", provider=name, response_format=FORMATS[1]) as connection:
        frames = await connection.rest()
    assert [f.event for f in frames[-2:]] == ["error", "done"]
    assert frames[-2].data["code"] == "schema_violation"
    assert '$.steps fails "type"' in frames[-2].data["message"]
    assert json_events(frames) == pieces_of(json.loads(text), 2)
    status = await system.status(connection.stream_id)
    assert (status["text"], status["json"], status["status"]) == (text, None, "failed")
    assert frames[-1].data["usage"] == {"input_tokens": 3, "output_tokens": 9, "estimated": False}


@network
async def test_an_answer_cut_off_by_the_token_limit_is_no_schema_violation(system: System, name: str) -> None:
    system.fake.play(f"short-{name}", Answer(deltas=['{"name": "x", "st'], finish_reason="length"))
    async with await system.stream(f"short-{name}", provider=name, response_format=FORMATS[1]) as connection:
        frames = await connection.rest()
    assert json_events(frames) == [(["name"], "x")]
    assert frames[-1].data["finish_reason"] == "length"
    assert [f.event for f in frames].count("error") == 0


async def test_a_late_or_resumed_reader_gets_the_same_values(system: System) -> None:
    system.fake.play("json-late", Answer(deltas=cut(json.dumps(RECIPE), 3)))
    async with await system.stream("json-late", response_format=FORMATS[0]) as connection:
        whole = await connection.rest()
    for i, frame in enumerate(whole[:-1]):
        if frame.id is not None:
            async with await system.read(connection.stream_id, frame.id, gateway=1) as again:
                assert [f.data for f in await again.rest()] == [f.data for f in whole[i + 1 :]]


async def test_a_value_larger_than_an_event_is_sent_whole(system: System) -> None:
    """The value is also larger than one write to a client."""
    rows = [{"n": n, "text": "x" * 90} for n in range(5000)]
    system.fake.play("json-large", Answer(deltas=cut(json.dumps({"rows": rows}), 4)))
    async with await system.stream("json-large", response_format=FORMATS[0]) as connection:
        frames = await connection.rest()
    assert json_events(frames)[-2:] == [(["rows"], rows), ([], {"rows": rows})]
    assert frames[-1].data["finish_reason"] == "stop"
