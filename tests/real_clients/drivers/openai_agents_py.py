"""OpenAI's Agents SDK for Python, over Responses (also its WebSocket) and over Chat Completions."""

import asyncio

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    OpenAIResponsesWSModel,
    Runner,
    ToolOutputImage,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from task import OPENAI_URL, TASK, append, cancelled, finish, read, run

set_tracing_disabled(True)


class Value(BaseModel):
    n: int


def agent(**options):
    client = AsyncOpenAI(base_url=OPENAI_URL, api_key="none")
    if TASK.client == "WebSocket":
        kind = OpenAIResponsesWSModel
    else:
        kind = OpenAIResponsesModel if TASK.api == "responses" else OpenAIChatCompletionsModel
    return Agent(name="agent", model=kind(model=TASK.model, openai_client=client), **options)


@function_tool
def look(path: str) -> ToolOutputImage:
    """Read an image."""
    return ToolOutputImage(image_url=f"data:image/png;base64,{read(path)[1]}")


def tools():
    finish(text=Runner.run_sync(agent(tools=[function_tool(append), look]), TASK.prompt).final_output)


def text():
    finish(text=Runner.run_sync(agent(), TASK.prompt).final_output)


def structured():
    finish(parsed=Runner.run_sync(agent(output_type=Value), TASK.prompt).final_output.model_dump())


def usage():
    used = Runner.run_sync(agent(), TASK.prompt).context_wrapper.usage
    finish(cached=used.input_tokens_details.cached_tokens)


async def _cancel():
    running = agent()
    answer = Runner.run_streamed(running, TASK.prompt)
    async for event in answer.stream_events():
        if event.type == "raw_response_event" and "delta" in event.data.type:
            break
    answer.cancel()
    await running.model.close()  # cancelled between two events, it would keep its WebSocket open
    await asyncio.to_thread(cancelled)


def cancel():
    asyncio.run(_cancel())


run(text=text, tools=tools, image=tools, structured=structured, cancel=cancel, error=text, usage=usage)
