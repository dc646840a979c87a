"""LiteLLM as a client: its caller runs the tools. OpenAI's models over both APIs, and Anthropic's."""

import asyncio
import json

import litellm
from task import ANTHROPIC_URL, OPENAI_URL, SCHEMA, TASK, append, cancelled, finish, read, run

_TEXT = {"type": "string"}


def _parameters(name):
    return {"type": "object", "properties": {name: _TEXT}, "required": [name]}


FUNCTIONS = [
    {"name": "append", "description": "Append a line.", "parameters": _parameters("line")},
    {"name": "look", "description": "Read an image.", "parameters": _parameters("path")},
]
MESSAGES = TASK.api == "messages"
TARGET = {
    "model": f"{'anthropic' if MESSAGES else 'openai'}/{TASK.model}",
    "api_base": ANTHROPIC_URL if MESSAGES else OPENAI_URL,
    "api_key": "none",
    "max_retries": 0,
}


def image(path):
    return f"data:image/png;base64,{read(path)[1]}"


def chat_agent():
    messages = [{"role": "user", "content": TASK.prompt}]
    tools = [{"type": "function", "function": function} for function in FUNCTIONS]
    while True:
        chunks = litellm.completion(**TARGET, messages=messages, tools=tools, stream=True)
        message = litellm.stream_chunk_builder(list(chunks), messages=messages).choices[0].message
        messages.append(message)
        if not message.tool_calls:
            return finish(text=message.content)
        for call in message.tool_calls:
            arguments = json.loads(call.function.arguments)
            if call.function.name == "look":
                result = [{"type": "image_url", "image_url": {"url": image(**arguments)}}]
            else:
                result = append(**arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


def responses_agent():
    items = [{"role": "user", "content": TASK.prompt}]
    tools = [{"type": "function", **function} for function in FUNCTIONS]
    while True:
        answer = litellm.responses(**TARGET, input=items, tools=tools)
        items += [item.model_dump(exclude_none=True) for item in answer.output]
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            return finish(text=answer.output_text)
        for call in calls:
            arguments = json.loads(call.arguments)
            if call.name == "look":
                result = [{"type": "input_image", "image_url": image(**arguments)}]
            else:
                result = append(**arguments)
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": result})


def chat_ask(**options):
    return litellm.completion(**TARGET, messages=[{"role": "user", "content": TASK.prompt}], **options)


def chat_text():
    parts = (chunk.choices[0].delta.content for chunk in chat_ask(stream=True) if chunk.choices)
    finish(text="".join(part for part in parts if part))


def chat_structured():
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    finish(parsed=json.loads(chat_ask(response_format=form).choices[0].message.content))


def chat_usage():
    finish(cached=chat_ask().usage.prompt_tokens_details.cached_tokens)


def responses_ask(**options):
    return litellm.responses(**TARGET, input=TASK.prompt, **options)


def responses_text():
    finish(text="".join(e.delta for e in responses_ask(stream=True) if e.type == "response.output_text.delta"))


def responses_structured():
    form = {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}
    finish(parsed=json.loads(responses_ask(text={"format": form}).output_text))


def responses_usage():
    finish(cached=responses_ask().usage.input_tokens_details.cached_tokens)


async def _cancel():
    if TASK.api == "responses":
        chunks = await litellm.aresponses(**TARGET, input=TASK.prompt, stream=True)
    else:
        prompt = [{"role": "user", "content": TASK.prompt}]
        chunks = await litellm.acompletion(**TARGET, messages=prompt, stream=True)
    async for chunk in chunks:
        if getattr(chunk, "delta", None) or (getattr(chunk, "choices", None) and chunk.choices[0].delta.content):
            break
    await chunks.aclose()
    await asyncio.to_thread(cancelled)


def cancel():
    asyncio.run(_cancel())


if TASK.api == "responses":
    agent, text, structured, usage = responses_agent, responses_text, responses_structured, responses_usage
else:
    agent, text, structured, usage = chat_agent, chat_text, chat_structured, chat_usage
run(text=text, tools=agent, image=agent, structured=structured, cancel=cancel, error=text, usage=usage)
