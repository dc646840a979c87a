"""Hooks for tests: those of ``examples/python/hooks_redaction.py``, and words that make them refuse or fail."""

import asyncio

from examples.python.hooks_redaction import RedactedAnswer, Redaction
from shared.hooks import (
    AnswerContext,
    AnswerRefused,
    AnswerWatch,
    RequestContext,
    RequestRefused,
    TextKind,
    WholeAnswer,
    texts_of,
)
from shared.schemas import ChatRequest


class TestHooks(Redaction):
    async def check_request(self, request: ChatRequest, context: RequestContext) -> ChatRequest | None:
        text = " ".join(texts_of(request))
        if "forbidden" in text:
            raise RequestRefused(f"forbidden for {context.principal}")
        if "explode" in text:
            raise ValueError(text)
        if "sleep" in text:
            await asyncio.sleep(600)
        if "mistake" in text:
            return "no request"  # type: ignore[return-value]
        return await super().check_request(request, context)

    def watch_answer(self, context: AnswerContext) -> AnswerWatch | None:
        return TestWatch(context)


class TestWatch(RedactedAnswer):
    def __init__(self, context: AnswerContext) -> None:
        super().__init__()
        self._context = context

    async def on_text(self, text: str, kind: TextKind) -> str:
        match text.strip():
            case "REFUSE":
                raise AnswerRefused("stopped here")
            case "EXPLODE":
                raise ValueError(text)
            case "SLEEP":
                await asyncio.sleep(600)
        return await super().on_text(text, kind)

    async def on_end(self, answer: WholeAnswer) -> None:
        if answer.text.startswith("AT THE END"):
            raise AnswerRefused(f"{len(answer.text)} characters, {answer.finish_reason}")
