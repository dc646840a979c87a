"""Simplest chat server: the provider's SDK in a request handler. The answer ends with its connection."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from openai import AsyncOpenAI
from pydantic import BaseModel
from sse_starlette import EventSourceResponse


class Question(BaseModel):
    model: str
    prompt: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Create one client, so one connection pool, for all requests; the SDK reads URL and key from the environment."""
    async with AsyncOpenAI() as client:
        app.state.openai = client
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/chat")
async def chat(question: Question, request: Request) -> EventSourceResponse:
    return EventSourceResponse(events(request.app.state.openai, question))


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


async def events(openai: AsyncOpenAI, question: Question) -> AsyncIterator[str]:
    """Yield the data of each event: a token as JSON, at the end ``[DONE]``."""
    stream = await openai.chat.completions.create(
        model=question.model,
        messages=[{"role": "user", "content": question.prompt}],
        stream=True,
    )
    async with stream:
        async for chunk in stream:
            if chunk.choices and (token := chunk.choices[0].delta.content):
                yield json.dumps({"token": token})
    yield "[DONE]"
