"""An agent of Pydantic AI."""

import asyncio

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput, PromptedOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from task import ANTHROPIC_URL, OPENAI_URL, TASK, append, cancelled, finish, read, run


class Value(BaseModel):
    n: int


def model():
    if TASK.api == "messages":
        return AnthropicModel(TASK.model, provider=AnthropicProvider(base_url=ANTHROPIC_URL, api_key="none"))
    kind = OpenAIResponsesModel if TASK.api == "responses" else OpenAIChatModel
    return kind(TASK.model, provider=OpenAIProvider(base_url=OPENAI_URL, api_key="none"))


def look(path: str) -> BinaryContent:
    """Read an image."""
    return BinaryContent(read(path)[0], media_type="image/png")


def agent():
    finish(text=Agent(model(), tools=[append, look]).run_sync(TASK.prompt).output)


def text():
    finish(text=Agent(model()).run_sync(TASK.prompt).output)


def structured():
    # Its Anthropic model refuses native output for a model name that it does not know.
    output = PromptedOutput(Value) if TASK.api == "messages" else NativeOutput(Value)
    answer = Agent(model(), output_type=output).run_sync(TASK.prompt)
    finish(parsed=answer.output.model_dump())


def usage():
    used = Agent(model()).run_sync(TASK.prompt).usage
    finish(cached=(used() if callable(used) else used).cache_read_tokens)


async def _cancel():
    async with Agent(model()).run_stream(TASK.prompt) as answer:
        async for _ in answer.stream_text(debounce_by=None):
            break
        await answer.cancel()
    await asyncio.to_thread(cancelled)


def cancel():
    asyncio.run(_cancel())


run(text=text, tools=agent, image=agent, structured=structured, cancel=cancel, error=text, usage=usage)
