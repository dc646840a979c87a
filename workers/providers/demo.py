"""Built-in provider without key and network: it always gives the same answer."""

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Final

from shared.protocol.events import Usage
from shared.provider_fields import ignored_paths
from shared.schemas import ChatRequest, NamedToolChoice, ResponseFormat
from shared.schemas.tools import ToolFunction
from workers.providers.base import (
    AnswerPart,
    Delta,
    Finished,
    FinishReason,
    IgnoredFields,
    ModelList,
    ReasoningDelta,
    Sink,
    TextDelta,
    ToolCallDelta,
)
from workers.providers.demo_json import instance_of
from workers.providers.endpoint import ApiKey, Endpoint
from workers.providers.refused_fields import check_forced_tool, unsupported
from workers.providers.tool_calls import ToolCalls, offered_tools

MODEL: Final = "demo"
#: About 1.3 MB of text; longer answers would only reach the stream's byte limit.
MAX_WORDS: Final = 100_000

STORY: Final = """\
*This is Headrace's built-in demo, not a language model: the same story every time. Pull the plug whenever you like, \
come back, and read on.*

## The miller's gate

Above the village stood a mill, and above the mill lay a lake that kept no hours. In spring it came down the hill \
like horses; in August it barely remembered the way. The old miller had lost two wheels to the first and many a \
harvest to the second.

Her daughter dug a **headrace**: a narrow channel along the slope, with a gate of oak at its mouth. When the wheel \
turned slowly, she let the water wait. When it turned fast, she opened the gate a hand's breadth more. Nothing \
flooded, and nothing was spilt.

- The lake gave as it pleased.
- The channel remembered what had come.
- The wheel took what it could carry.

One evening a boy who was carving notches into a stick, one for every turn of the wheel, fell asleep. He woke in the \
dark and wept, for he had lost his count.

"Show me your stick," said the miller's daughter. "You have four hundred and twelve. The channel keeps every turn \
since; we shall read them off together, and then you carve on with the living ones."

And so they did, and no turn was missing, and none was carved twice.

### Try it yourself

Reload the page, switch off the network, or stop the gateway. When you come back, your reader names the last notch \
on its stick, and the story goes on with the very next word. Ask for `500 words` to have more time for mischief.
"""

#: The story's title and paragraphs without Markdown.
_TITLE, *_PARAGRAPHS = (
    " ".join(line.removeprefix("- ") for line in block.replace("**", "").splitlines())
    for block in STORY.partition("## ")[2].partition("### ")[0].strip().split("\n\n")
)
_SENTENCES: Final = [sentence.strip() for sentence in re.findall(r"[^.]+\.", " ".join(_PARAGRAPHS).replace('"', ""))]
_NOUNS: Final = ("lake", "gate", "water", "wheel", "stone", "grain", "flour", "bread")
THOUGHT: Final = "The reader wants me to think. I cannot, but this is how thoughts come before an answer."
_COUNT: Final = re.compile(r"\b(\d{1,9})\s+words\b|\bcount\s+to\s+(\d{1,9})\b", re.IGNORECASE)
#: For tests of timeouts between here and the client.
_SILENCE: Final = re.compile(r"\bnothing\s+for\s+(\d{1,2})\s+seconds\b", re.IGNORECASE)
_THINK: Final = re.compile(r"\bthink\b", re.IGNORECASE)
#: A token is a word with the space before it, so that the joined tokens are the text.
_TOKEN: Final = re.compile(r"\s*\S+|\s+$")

_DemoDelta = TextDelta | ReasoningDelta | ToolCallDelta


class DemoProvider:
    """A provider of kind ``demo``: streams :func:`demo_deltas` at ``demo_tokens_per_s``."""

    family = "demo"
    counts_tokens = False

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self._interval_s = 1 / endpoint.configuration.settings.demo_tokens_per_s

    async def list_models(self) -> ModelList:
        return ModelList((MODEL,), closed=True)

    async def probe(self, key: ApiKey | None = None) -> tuple[str, ...]:
        return (MODEL,)

    async def stream(
        self, request: ChatRequest, key: ApiKey | None = None, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        check_forced_tool(request, self.name, self.family)
        if ignored := ignored_paths(request, self.family):
            if request.unsupported_fields == "refuse":
                raise unsupported(self.name, ignored[0])
            yield IgnoredFields(ignored)
        deltas = demo_deltas(request)
        allowed = deltas if request.max_tokens is None else itertools.islice(deltas, request.max_tokens)
        calls = ToolCalls(self.name, offered_tools(request))
        if silence := _SILENCE.search(_question(request)):
            await asyncio.sleep(int(silence[1]))
        started_at = time.monotonic()
        sent = 0
        for delta in allowed:
            # Each token has its own due time, so that a late one does not delay all that follow.
            await asyncio.sleep(max(0.0, started_at + sent * self._interval_s - time.monotonic()))
            if came := list(_in_order(calls, delta)):
                yield came
            sent += 1
        reason: FinishReason = "stop" if next(deltas, None) is None else "length"
        if completed := list(calls.finish(reason)):
            yield completed
        prompt = sum(len(message.text.split()) for message in request.messages)
        yield Finished(calls.reason(reason), Usage(input_tokens=prompt, output_tokens=sent))

    async def aclose(self) -> None:
        pass


def demo_deltas(request: ChatRequest) -> Iterator[_DemoDelta]:
    """Yield the whole answer, token by token: a tool call unless the last message is a tool's result, else text."""
    if _THINK.search(_question(request)):
        yield from map(ReasoningDelta, _TOKEN.findall(THOUGHT))
    function = _function_to_call(request)
    if function is not None:
        yield from _call(function, number=sum(len(message.tool_calls or ()) for message in request.messages) + 1)
    else:
        text = _before_stop(demo_text(request), request.stop or [])
        yield from (TextDelta(match.group()) for match in _TOKEN.finditer(text))


def demo_text(request: ChatRequest) -> str:
    """Return the whole answer: JSON if requested; else numbered words if the last user message asks for a number of
    words; else the story."""
    if request.response_format is not None and request.response_format.type != "text":
        return json.dumps(_json_answer(request.response_format), ensure_ascii=False)
    wanted = _COUNT.search(_question(request))
    if wanted is None:
        return STORY
    count = min(int(wanted.group(1) or wanted.group(2)), MAX_WORDS)
    words = (f"{noun}-{n}" for n, noun in zip(range(1, count + 1), itertools.cycle(_NOUNS), strict=False))
    return f"*Headrace's built-in demo, not a language model, counts to {count}:*\n\n{' '.join(words)}\n"


def _question(request: ChatRequest) -> str:
    return next((message.text for message in reversed(request.messages) if message.role == "user"), "")


def _before_stop(text: str, stops: list[str]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _json_answer(wanted: ResponseFormat) -> Any:
    if wanted.json_schema is None:
        return {"title": _TITLE, "paragraphs": _PARAGRAPHS}
    return instance_of(wanted.json_schema.schema_, itertools.cycle(_SENTENCES))


def _function_to_call(request: ChatRequest) -> ToolFunction | None:
    if not request.tools or request.tool_choice == "none" or request.messages[-1].role == "tool":
        return None
    choice = request.tool_choice
    named = choice.function.name if isinstance(choice, NamedToolChoice) else request.tools[0].function.name
    return next(tool.function for tool in request.tools if tool.function.name == named)


def _call(function: ToolFunction, number: int) -> Iterator[ToolCallDelta]:
    """Yield one tool call. ``number`` counts the calls of the conversation, so that no two ids are equal."""
    arguments = instance_of(function.parameters or {"type": "object"}, itertools.cycle(_NOUNS))
    first, *others = _TOKEN.findall(json.dumps(arguments, ensure_ascii=False))
    yield ToolCallDelta(0, first, f"call_demo_{number}", function.name)
    yield from (ToolCallDelta(0, token) for token in others)


def _in_order(calls: ToolCalls, delta: _DemoDelta) -> Iterator[Delta]:
    if isinstance(delta, ToolCallDelta):
        return calls.fragment(delta.index, id=delta.id, name=delta.name, arguments=delta.text)
    return iter((delta,))
