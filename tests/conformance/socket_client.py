"""OpenAI's SDK for Python over a WebSocket. Its connection sends messages as they are: its user writes the messages
that are Headrace's own, the reconnect, and the parsing of structured output."""

import json
from typing import Any

from openai import AsyncOpenAI
from websockets.exceptions import ConnectionClosed

from tests.conformance.outcome import Ask, Outcome, Say
from tests.conformance.python_clients import OBJECT, Person, Reading, openai_sdk


async def openai_socket(ask: Ask, outcome: Outcome, say: Say) -> None:
    async with openai_sdk(ask) as client:
        reading = _SocketReading(client, ask, outcome, say)
        try:
            await reading.exchange(_resume(ask.join, -1) if ask.join else _create(ask))
        except ConnectionClosed:
            if not ask.resume:
                raise
            await reading.exchange(_resume(reading.id, reading.last) if reading.id else _create(ask))
    if ask.structured and outcome.text:
        outcome.parsed = Person.model_validate_json(outcome.text).model_dump()


class _SocketReading(Reading):
    def __init__(self, client: AsyncOpenAI, ask: Ask, outcome: Outcome, say: Say) -> None:
        super().__init__(client, ask, outcome, say)
        self._connection: Any = None

    async def exchange(self, message: dict[str, Any]) -> None:
        async with self._client.responses.connect() as self._connection:
            await self._connection.send_raw(json.dumps(message))
            await self.read(self._connection)

    async def leave(self) -> None:
        await self._connection.send_raw(json.dumps({"type": "response.cancel", "response_id": self.id}))

    def take(self, event: Any) -> bool:
        if event.type == "error":
            error = event.error
            self._outcome.error = {
                "name": "error", "status": event.status, "code": error.code, "message": error.message,
            }  # fmt: skip
            return True
        return super().take(event)


def _create(ask: Ask) -> dict[str, Any]:
    body: dict[str, Any] = {"type": "response.create", "model": ask.model, "input": "hi", "background": True}
    if ask.key:
        body["idempotency_key"] = ask.key
    if ask.tools:
        body["tools"] = [{"type": "function", "name": name, "parameters": OBJECT} for name in ask.tools]
    if ask.structured:
        schema = {"type": "json_schema", "name": "person", "schema": Person.model_json_schema()}
        body["text"] = {"format": schema}
    return body


def _resume(response_id: str, last: int) -> dict[str, Any]:
    return {"type": "response.resume", "response_id": response_id, "starting_after": last}
