"""The built-in provider: no key, no network, the same answer every time."""

import asyncio
import itertools
import re
import time
from collections.abc import AsyncGenerator
from typing import Final

from shared.protocol.events import Usage
from shared.schemas import ChatRequest
from shared.settings import Settings
from workers.providers.base import Delta, Finished, FinishReason, Offer, TextDelta

MODEL: Final = "demo"
#: About 1.3 MB of text; longer answers would only meet the stream's byte limit.
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

_NOUNS: Final = ("lake", "gate", "water", "wheel", "stone", "grain", "flour", "bread")
_ASKED: Final = re.compile(r"\b(\d{1,9})\s+words\b|\bcount\s+to\s+(\d{1,9})\b", re.IGNORECASE)
#: A token is a word with the space before it, so that joined tokens are the text.
_TOKEN: Final = re.compile(r"\s*\S+|\s+$")


class DemoProvider:
    """Streams :func:`demo_text` at ``demo_tokens_per_s``."""

    name = "demo"

    def __init__(self, settings: Settings) -> None:
        self._interval_s = 1 / settings.demo_tokens_per_s

    async def offer(self) -> Offer:
        return Offer((MODEL,))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Finished, None]:
        text = _before_stop(demo_text(request), request.stop or [])
        tokens = (match.group() for match in _TOKEN.finditer(text))
        allowed = tokens if request.max_tokens is None else itertools.islice(tokens, request.max_tokens)
        started_at = time.monotonic()
        sent = 0
        for token in allowed:
            # Each token has its time of its own, so that late ones do not delay all that follow.
            await asyncio.sleep(max(0.0, started_at + sent * self._interval_s - time.monotonic()))
            yield [TextDelta(token)]
            sent += 1
        reason: FinishReason = "stop" if next(tokens, None) is None else "length"
        prompt = sum(len(message.text.split()) for message in request.messages)
        yield Finished(reason, Usage(input_tokens=prompt, output_tokens=sent))

    async def aclose(self) -> None:
        pass


def demo_text(request: ChatRequest) -> str:
    """The whole answer: the story, or numbered words where the last user message asks for a number of them."""
    questions = [message.text for message in request.messages if message.role == "user"]
    asked = _ASKED.search(questions[-1]) if questions else None
    if asked is None:
        return STORY
    count = min(int(asked.group(1) or asked.group(2)), MAX_WORDS)
    words = (f"{noun}-{n}" for n, noun in zip(range(1, count + 1), itertools.cycle(_NOUNS), strict=False))
    return f"*Headrace's built-in demo, not a language model, counts to {count}:*\n\n{' '.join(words)}\n"


def _before_stop(text: str, stops: list[str]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
