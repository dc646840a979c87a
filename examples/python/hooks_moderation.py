"""Hooks that ask an OpenAI-style moderation endpoint about requests and answers.

    PYTHONPATH=examples/python HEADRACE_HOOKS=hooks_moderation:Moderation MODERATION_API_KEY=sk-… headrace up

An answer is checked after each 400 characters, before the last of them are appended, and at its end. Up to so many
characters are shown before the endpoint has seen them. If it does not answer, the request or answer ends with
``hook_failed``.
"""

import os

from openai import AsyncOpenAI

from shared.hooks import (
    AnswerContext,
    AnswerRefused,
    AnswerWatch,
    Hooks,
    RequestContext,
    RequestRefused,
    TextKind,
    WholeAnswer,
    texts_of,
)
from shared.schemas import ChatRequest

EVERY = 400


class Moderation(Hooks):
    def __init__(self) -> None:
        self._client = AsyncOpenAI(
            base_url=os.environ.get("MODERATION_BASE_URL", "https://api.openai.com/v1"),
            api_key=os.environ["MODERATION_API_KEY"],
            max_retries=1,
        )
        self._model = os.environ.get("MODERATION_MODEL", "omni-moderation-latest")

    async def flags(self, text: str) -> bool:
        checked = await self._client.moderations.create(input=text, model=self._model)
        return any(result.flagged for result in checked.results)

    async def check_request(self, request: ChatRequest, context: RequestContext) -> ChatRequest | None:
        if await self.flags("\n".join(texts_of(request))):
            raise RequestRefused("this request does not follow our rules; please rephrase it")
        return None

    def watch_answer(self, context: AnswerContext) -> AnswerWatch | None:
        return ModeratedAnswer(self)

    async def aclose(self) -> None:
        await self._client.close()


class ModeratedAnswer(AnswerWatch):
    def __init__(self, moderation: Moderation) -> None:
        self._moderation = moderation
        self._text = ""
        self._checked = 0

    async def on_text(self, text: str, kind: TextKind) -> str:
        self._text += text
        if len(self._text) - self._checked >= EVERY:
            await self._check()
        return text

    async def on_tool_call(self, name: str, arguments: str) -> str:
        self._text += f"\n{name} {arguments}\n"
        await self._check()
        return arguments

    async def on_end(self, answer: WholeAnswer) -> None:
        if len(self._text) > self._checked:
            await self._check()

    async def _check(self) -> None:
        self._checked = len(self._text)
        if await self._moderation.flags(self._text):
            raise AnswerRefused("the answer does not follow our rules and was stopped")
