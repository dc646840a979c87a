"""The upstream of all cells. It plays an agent's model: the number of tool results in a request decides the answer,
so a repeated request gets the same answer again."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

from tests.fakes import Answer, Call

_SIDE_ANSWER: Final = Answer(deltas=("A title",))
#: A PNG, or the JPEG that a program makes of it.
_IMAGE: Final = re.compile(r"(?:base64,|\"data\": ?\")(?:iVBORw0KGgo|/9j/)")


@dataclass(slots=True)
class Play:
    """The answers of one cell, and the requests of its main loop. ``offers_tools``: a request without tools is a side
    request, and so is one without the ``main_tool``, if there is one."""

    answers: Sequence[Answer]
    offers_tools: bool
    count_results: Callable[[dict[str, Any]], int]
    main_tool: str | None = None
    calls: list[Call] = field(default_factory=list)
    side_calls: list[Call] = field(default_factory=list)
    side_answer: Answer = _SIDE_ANSWER
    #: Sent to the first request with a tool's result.
    refused_once: Answer | None = None

    def is_side_request(self, request: dict[str, Any]) -> bool:
        tools: list[dict[str, Any]] = request.get("tools") or []
        if self.main_tool is None:
            return self.offers_tools and not tools
        return self.main_tool not in {tool.get("function", tool).get("name") for tool in tools}

    @property
    def results(self) -> list[int]:
        """Return the number of tool results in each request."""
        return [self.count_results(call.request) for call in self.calls]

    @property
    def images(self) -> list[bool]:
        """Return for each request whether it has an image."""
        return [_IMAGE.search(json.dumps(call.request)) is not None for call in self.calls]


class Upstream:
    """Finds the play of a call by the mark in its prompt: many cells share one provider."""

    def __init__(self) -> None:
        self._plays: dict[str, Play] = {}

    def add(self, mark: str, play: Play) -> None:
        self._plays[mark] = play

    def answer(self, call: Call) -> Answer:
        found = re.search(r"\bmark-\d+\b", json.dumps(call.request["messages"]))
        play = self._plays.get(found[0]) if found else None
        if play is None:
            return _SIDE_ANSWER
        if play.is_side_request(call.request):
            play.side_calls.append(call)
            return play.side_answer
        play.calls.append(call)
        before = [0, *accumulate(len(answer.tools) for answer in play.answers)]
        results = play.count_results(call.request)
        if results and play.refused_once is not None:
            refusal, play.refused_once = play.refused_once, None
            return refusal
        return next(play.answers[at] for at in reversed(range(len(play.answers))) if before[at] <= results)


def count_results(request: dict[str, Any]) -> int:
    """Count the tool results of a Chat Completions or Messages request."""
    messages: list[dict[str, Any]] = request["messages"]
    blocks = [block for m in messages if isinstance(m.get("content"), list) for block in m["content"]]
    in_blocks = sum(1 for block in blocks if block.get("type") == "tool_result")
    return in_blocks + sum(1 for message in messages if message["role"] == "tool")
