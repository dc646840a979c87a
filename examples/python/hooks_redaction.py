"""Hooks that remove e-mail addresses and long numbers, such as those of cards, from requests and answers.

PYTHONPATH=examples/python HEADRACE_HOOKS=hooks_redaction:Redaction headrace up
"""

import re

from shared.hooks import AnswerContext, AnswerWatch, Hooks, RequestContext, TextKind, with_texts
from shared.schemas import ChatRequest

REMOVED = "[removed]"
PRIVATE = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+|(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)")
#: The end of a text that may be the beginning of something private.
UNDECIDED = re.compile(r"(?:\d[ -]?)*[\w.+@-]*$")
#: Kept at most, so that a text without spaces is not kept until the end.
LONGEST = 320


def redact(text: str) -> str:
    return PRIVATE.sub(REMOVED, text)


class Redaction(Hooks):
    async def check_request(self, request: ChatRequest, context: RequestContext) -> ChatRequest | None:
        return with_texts(request, redact)

    def watch_answer(self, context: AnswerContext) -> AnswerWatch | None:
        return RedactedAnswer()


class RedactedAnswer(AnswerWatch):
    redacts = True

    def __init__(self) -> None:
        self._kept = ""

    async def on_text(self, text: str, kind: TextKind) -> str:
        whole = self._kept + text
        undecided = UNDECIDED.search(whole)
        at = max(undecided.start() if undecided else len(whole), len(whole) - LONGEST)
        self._kept = whole[at:]
        return redact(whole[:at])

    async def flush(self, kind: TextKind) -> str:
        kept, self._kept = self._kept, ""
        return redact(kept)

    async def on_tool_call(self, name: str, arguments: str) -> str:
        return redact(arguments)
