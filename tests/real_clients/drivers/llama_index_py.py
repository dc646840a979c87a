"""LlamaIndex's function agent, with its models for OpenAI-compatible servers (both APIs) and for Anthropic."""

import asyncio
import json

from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.llms import ImageBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses
from pydantic import BaseModel
from task import ANTHROPIC_URL, OPENAI_URL, TASK, append, cancelled, finish, read, run


class Value(BaseModel):
    n: int


def model():
    if TASK.api == "messages":
        return Anthropic(model=TASK.model, base_url=ANTHROPIC_URL, api_key="none", max_retries=0)
    options = {"model": TASK.model, "api_base": OPENAI_URL, "api_key": "none", "max_retries": 0}
    options |= {"is_function_calling_model": True, "context_window": 200_000}
    if TASK.api == "responses":
        return OpenAILikeResponses(**options)
    return OpenAILike(**options, is_chat_model=True, should_use_structured_outputs=True)


def look(path: str) -> ImageBlock:
    """Read an image."""
    return ImageBlock(image=read(path)[0], image_mimetype="image/png")


async def _agent():
    answer = await FunctionAgent(tools=[append, look], llm=model()).run(TASK.prompt)
    finish(text=answer.response.content)


def agent():
    asyncio.run(_agent())


def text():
    finish(text="".join(chunk.delta or "" for chunk in model().stream_complete(TASK.prompt)))


def structured():
    finish(parsed=model().structured_predict(Value, PromptTemplate(TASK.prompt)).model_dump())


def usage():
    raw = model().complete(TASK.prompt).raw
    used = json.loads(json.dumps(dict(raw)["usage"], default=lambda part: part.model_dump()))
    details = used.get("prompt_tokens_details") or used.get("input_tokens_details") or {}
    finish(cached=details.get("cached_tokens", used.get("cache_read_input_tokens")))


async def _cancel():
    running = FunctionAgent(llm=model()).run(TASK.prompt)
    async for event in running.stream_events():
        if isinstance(event, AgentStream) and event.delta:
            break
    await running.cancel_run()
    await asyncio.to_thread(cancelled)


def cancel():
    asyncio.run(_cancel())


run(text=text, tools=agent, image=agent, structured=structured, cancel=cancel, error=text, usage=usage)
