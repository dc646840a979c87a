"""The clients in Python, each used according to its documentation."""

import json
from typing import Any

import httpx
import httpx_sse
import openai
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.conformance.outcome import Ask, Outcome, Say

HELLO: list[Any] = [{"role": "user", "content": "hi"}]
OBJECT: dict[str, Any] = {"type": "object"}


class Person(BaseModel):
    name: str


async def openai_chat(ask: Ask, outcome: Outcome, say: Say) -> None:
    async with openai_sdk(ask) as client:
        more: dict[str, Any] = {"tools": _functions(ask)} if ask.tools else {}
        more |= {"response_format": Person} if ask.structured else {}
        options = {"stream_options": {"include_usage": True}, "extra_headers": _keyed(ask), **more}
        async with client.chat.completions.stream(model=ask.model, messages=HELLO, **options) as stream:
            async for event in stream:
                if event.type != "chunk":
                    continue
                delta: Any = event.chunk.choices[0].delta if event.chunk.choices else None
                outcome.reasoning += getattr(delta, "reasoning_content", None) or ""
                outcome.refusal += getattr(delta, "refusal", None) or ""
                if delta and delta.content:
                    outcome.text += delta.content
                    say()
                    if outcome.leaves(ask):
                        return
            try:
                completion: Any = await stream.get_final_completion()
            except openai.LengthFinishReasonError as error:  # the helper's result for that end
                completion = error.completion
            except openai.ContentFilterFinishReasonError:
                outcome.finish = "content_filter"
                return
    choice = completion.choices[0]
    calls = choice.message.tool_calls or []
    outcome.tools = [[call.function.name, json.loads(call.function.arguments)] for call in calls]
    parsed = getattr(choice.message, "parsed", None)
    outcome.parsed = parsed.model_dump() if parsed else None
    outcome.finish = choice.finish_reason
    outcome.usage = [completion.usage.prompt_tokens, completion.usage.completion_tokens]


async def openai_responses(ask: Ask, outcome: Outcome, say: Say) -> None:
    async with openai_sdk(ask) as client:
        reading = Reading(client, ask, outcome, say)
        body: dict[str, Any] = {"model": ask.model, "input": "hi", "background": True}
        if ask.tools:
            body["tools"] = [{"type": "function", "name": name, "parameters": OBJECT} for name in ask.tools]
        if ask.join:
            await reading.read(await client.responses.retrieve(ask.join, stream=True))
        elif ask.structured:
            async with client.responses.stream(**body, text_format=Person) as stream:
                await reading.read(stream)
                parsed = (await stream.get_final_response()).output_parsed
                outcome.parsed = parsed.model_dump() if parsed else None
        else:
            try:
                await reading.read(await client.responses.create(**body, stream=True, extra_headers=_keyed(ask)))
            except openai.APIConnectionError:
                if not ask.resume:
                    raise
                await reading.go_on()


class Reading:
    """Events of a response, and the reader's position in them. ``last``: number of the last event, and ``id``: of the
    response."""

    def __init__(self, client: AsyncOpenAI, ask: Ask, outcome: Outcome, say: Say) -> None:
        self.last = -1
        self.id = ""
        self._client = client
        self._ask = ask
        self._outcome = outcome
        self._say = say

    async def read(self, stream: Any) -> None:
        async for event in stream:
            if event.sequence_number is not None:
                self.last = event.sequence_number
            if hasattr(event, "response"):
                self.id = event.response.id
            if self.take(event):
                return
            if self._outcome.leaves(self._ask):
                await self.leave()
                return

    async def leave(self) -> None:
        await self._client.responses.cancel(self.id)

    async def go_on(self) -> None:
        responses = self._client.responses
        await self.read(await responses.retrieve(self.id, stream=True, starting_after=self.last))
        async with responses.stream(response_id=self.id, starting_after=0) as again:
            whole = await again.get_final_response()  # all again, by the helper
            assert whole.output_text == self._outcome.text

    def take(self, event: Any) -> bool:
        """Take one event. Return True for the last one."""
        match event.type:
            case "response.output_text.delta":
                self._outcome.text += event.delta
                self._say()
            case "response.reasoning_summary_text.delta":
                self._outcome.reasoning += event.delta
            case "response.refusal.delta":
                self._outcome.refusal += event.delta
            case "response.completed" | "response.failed" | "response.incomplete":
                _take_response(event.response, self._outcome)
                return True
        return False


def _take_response(response: Any, outcome: Outcome) -> None:
    calls = [item for item in response.output if item.type == "function_call"]
    outcome.tools = [[call.name, json.loads(call.arguments)] for call in calls]
    details = response.incomplete_details
    outcome.finish = details.reason if details else response.status
    if response.usage:
        outcome.usage = [response.usage.input_tokens, response.usage.output_tokens]
    if response.error:
        outcome.error = {
            "name": "failed", "status": None, "code": response.error.code, "message": response.error.message,
        }  # fmt: skip


async def anthropic(ask: Ask, outcome: Outcome, say: Say) -> None:
    more: dict[str, Any] = {"output_format": Person} if ask.structured else {}
    if ask.tools:
        more["tools"] = [{"name": name, "input_schema": OBJECT} for name in ask.tools]
    options: dict[str, Any] = {"timeout": ask.read_timeout_s} if ask.read_timeout_s else {}
    async with (
        AsyncAnthropic(base_url=ask.base, api_key="none", max_retries=ask.max_retries, **options) as client,
        client.messages.stream(
            model=ask.model, max_tokens=1000, messages=HELLO, extra_headers=_keyed(ask), **more
        ) as stream,
    ):
        async for event in stream:
            if event.type != "content_block_delta":
                continue
            delta: Any = event.delta
            if delta.type == "thinking_delta":
                outcome.reasoning += delta.thinking
            if delta.type == "text_delta":
                outcome.text += delta.text
                say()
                if outcome.leaves(ask):
                    return
        message: Any = await stream.get_final_message()
    outcome.tools = [[block.name, block.input] for block in message.content if block.type == "tool_use"]
    parsed = getattr(message, "parsed_output", None)
    outcome.parsed = parsed.model_dump() if parsed else None
    outcome.finish = message.stop_reason
    outcome.usage = [message.usage.input_tokens, message.usage.output_tokens]


async def plain(ask: Ask, outcome: Outcome, say: Say) -> None:
    """``httpx-sse`` on Headrace's own API. It neither retries nor resumes; these four lines are the code that its
    user writes for that."""
    body: dict[str, Any] = {"model": ask.model, "messages": HELLO, "grace_s": 60 if ask.resume else 0}
    if ask.tools:
        body["tools"] = _functions(ask)
    if ask.structured:
        schema = {"name": "person", "schema": Person.model_json_schema()}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    method, url, last, tries = "POST", f"{ask.base}/chat/stream", "", 1 + ask.max_retries
    if ask.join:
        method, url = "GET", f"{ask.base}{ask.join['stream_url']}"
    timeout = httpx.Timeout(20, read=ask.read_timeout_s or 20)
    async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
        while True:
            headers = _keyed(ask) | ({"Last-Event-ID": last} if last else {})
            sent: dict[str, Any] = {"json": body} if method == "POST" else {}
            try:
                async with httpx_sse.aconnect_sse(client, method, url, headers=headers, **sent) as source:
                    if method == "POST" and source.response.is_success:
                        method, url = "GET", f"{ask.base}{source.response.headers['location']}"
                    async for event in source.aiter_sse():
                        last = event.id or last
                        if _take_event(event, outcome, say) or outcome.leaves(ask):
                            return
            except httpx.TransportError:
                tries -= 1
                if not (ask.resume or tries):
                    raise


def _take_event(event: httpx_sse.ServerSentEvent, outcome: Outcome, say: Say) -> bool:
    """Take one event. Return True at the end of the answer."""
    data = event.json()
    match event.event:
        case "start" if data.get("reset"):
            outcome.text = outcome.reasoning = outcome.refusal = ""
            outcome.tools = []
        case "token":
            outcome.text += data["token"]
            say()
        case "reasoning":
            outcome.reasoning += data["text"]
        case "refusal":
            outcome.refusal += data["text"]
        case "json" if not data["path"]:
            outcome.parsed = data["value"]
        case "tool_call" if data.get("complete"):
            outcome.tools.append([data["name"], json.loads(data["arguments"])])
        case "error":
            outcome.error = {"name": "error", "status": None, "code": data["code"], "message": data["message"]}
        case "done":
            outcome.finish = data["finish_reason"]
            if data["usage"]:
                outcome.usage = [data["usage"]["input_tokens"], data["usage"]["output_tokens"]]
    return event.event == "done"


def openai_sdk(ask: Ask) -> AsyncOpenAI:
    options: dict[str, Any] = {"timeout": ask.read_timeout_s} if ask.read_timeout_s else {}
    return AsyncOpenAI(base_url=f"{ask.base}/v1", api_key="none", max_retries=ask.max_retries, **options)


def _functions(ask: Ask) -> list[Any]:
    return [{"type": "function", "function": {"name": name, "parameters": OBJECT}} for name in ask.tools]


def _keyed(ask: Ask) -> dict[str, str]:
    return {"Idempotency-Key": ask.key} if ask.key else {}
