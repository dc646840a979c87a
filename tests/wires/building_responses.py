"""Good streams of Responses, as OpenAI documents them."""

import random
from itertools import zip_longest
from typing import Any, Final

from tests.wires.answers import GoodAnswer
from tests.wires.stream import Data, WireEvent

#: Reasons of incomplete answers.
REASONS: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_OPEN: Final = {"status": "in_progress"}


def responses_events(answer: GoodAnswer, rng: random.Random) -> list[WireEvent]:
    output = output_of(answer)
    events = [_event("start", "created", response=_response([], "in_progress"))]
    index = 0
    if answer.reasoning:
        events += _texts(index, output[index], "reasoning", answer.reasoning)
        index += 1
    if answer.text:
        events += _texts(index, output[index], "text", answer.text)
        index += 1
    events += _calls(index, output[index:], answer, in_turn=rng.random() < 0.3)
    return [*events, end_of(answer)]


def end_of(answer: GoodAnswer) -> WireEvent:
    """Return the last event, which has all of the answer."""
    response = whole_response(answer)
    return _event("end", response["status"], response=response)


def whole_response(answer: GoodAnswer) -> Data:
    reason = REASONS.get(answer.finish)
    status = "completed" if reason is None else "incomplete"
    details = None if reason is None else {"reason": reason}
    usage = {"input_tokens": answer.usage[0], "output_tokens": answer.usage[1], "total_tokens": sum(answer.usage)}
    return _response(output_of(answer), status) | {"incomplete_details": details, "usage": usage}


def output_of(answer: GoodAnswer) -> list[Data]:
    """Return the items of an answer."""
    output: list[Data] = []
    if answer.reasoning:
        part = {"type": "summary_text", "text": "".join(answer.reasoning)}
        output.append({"type": "reasoning", "id": "rs_1", "summary": [part]})
    if answer.text:
        text = {"type": "output_text", "text": "".join(answer.text), "annotations": []}
        output.append({"type": "message", "id": "msg_1", "role": "assistant", "content": [text]})
    for at, call in enumerate(answer.calls):
        members = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
        output.append({"type": "function_call", "id": f"fc_{at}", **members})
    return output


def _texts(index: int, item: Data, kind: str, texts: list[str]) -> list[WireEvent]:
    is_reasoning = kind == "reasoning"
    holder, name = ("summary", "reasoning_summary_text") if is_reasoning else ("content", "output_text")
    place = {"item_id": item["id"], "output_index": index, f"{holder}_index": 0}
    (part,) = item[holder]
    parts = "reasoning_summary_part" if is_reasoning else "content_part"
    return [
        _event("block start", "output_item.added", output_index=index, item={**item, **_OPEN, holder: []}),
        _event("noise", f"{parts}.added", **place, part={**part, "text": ""}),
        *(_event(kind, f"{name}.delta", **place, delta=text) for text in texts),
        _event("block stop", f"{name}.done", **place, text=part["text"]),
        _event("block stop", f"{parts}.done", **place, part=part),
        _event("block stop", "output_item.done", output_index=index, item=item),
    ]


def _calls(first: int, items: list[Data], answer: GoodAnswer, *, in_turn: bool) -> list[WireEvent]:
    """``in_turn``: the fragments of parallel calls alternate."""
    starts, grown, stops = [], [], []
    for at, (item, call) in enumerate(zip(items, answer.calls, strict=True)):
        where = {"output_index": first + at}
        place: dict[str, Any] = where | {"item_id": item["id"]}
        starts.append(_event("call", "output_item.added", at, **where, item={**item, **_OPEN, "arguments": ""}))
        name = "function_call_arguments"
        grown.append([_event("call", f"{name}.delta", at, **place, delta=text) for text in call.fragments])
        whole = _event("block stop", f"{name}.done", at, **place, arguments=item["arguments"])
        stops.append([whole, _event("block stop", "output_item.done", at, **where, item=item)])
    if in_turn:
        middle = [event for together in zip_longest(*grown) for event in together if event]
        return [*starts, *middle, *(event for stop in stops for event in stop)]
    return [e for start, rest, stop in zip(starts, grown, stops, strict=True) for e in (start, *rest, *stop)]


def _response(output: list[Data], status: str) -> Data:
    envelope = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m"}
    return {**envelope, "status": status, "output": output, "error": None}


def _event(kind: str, name: str, call: int | None = None, **members: Any) -> WireEvent:
    return WireEvent(kind, {"type": f"response.{name}", **members}, call=call, name=f"response.{name}")
