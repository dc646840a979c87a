"""Instructor, around the SDKs of OpenAI (both APIs) and of Anthropic. Structured output is by its default, a tool."""

import instructor
from anthropic import Anthropic
from openai import OpenAI
from pydantic import BaseModel
from task import ANTHROPIC_URL, OPENAI_URL, TASK, cancelled, finish, run

ASK = {"model": TASK.model, "messages": [{"role": "user", "content": TASK.prompt}], "max_retries": 0}


class Value(BaseModel):
    n: int


def client():
    if TASK.api == "messages":
        ASK["max_tokens"] = 1000
        return instructor.from_anthropic(Anthropic(base_url=ANTHROPIC_URL, api_key="none", max_retries=0))
    mode = instructor.Mode.RESPONSES_TOOLS if TASK.api == "responses" else instructor.Mode.TOOLS
    return instructor.from_openai(OpenAI(base_url=OPENAI_URL, api_key="none", max_retries=0), mode=mode)


def text():
    answer = client().create(response_model=None, **ASK)
    if TASK.api == "messages":
        finish(text="".join(block.text for block in answer.content))
    else:
        finish(text=answer.output_text if TASK.api == "responses" else answer.choices[0].message.content)


def structured():
    finish(parsed=client().create(response_model=Value, **ASK).model_dump())


def usage():
    used = client().create(response_model=None, **ASK).usage
    if TASK.api == "messages":
        finish(cached=used.cache_read_input_tokens)
    else:
        details = used.input_tokens_details if TASK.api == "responses" else used.prompt_tokens_details
        finish(cached=details.cached_tokens)


def cancel():
    chunks = client().create(response_model=None, stream=True, **ASK)
    for _, _ in zip(range(5), chunks, strict=False):
        pass
    chunks.close()
    cancelled()


run(text=text, structured=structured, cancel=cancel, error=structured, usage=usage)
