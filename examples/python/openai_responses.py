"""Streams an answer in the background. Kill it and start it again: it continues after the last saved event."""

import json
import os
from pathlib import Path

from openai import OpenAI

saved = Path("openai_responses.json")


def save(at: dict[str, object]) -> None:
    saved.with_suffix(".new").write_text(json.dumps(at))
    saved.with_suffix(".new").replace(saved)  # atomic: a kill leaves a complete file


client = OpenAI(
    base_url=os.environ.get("HEADRACE_URL", "http://localhost:8000") + "/v1",
    api_key=os.environ.get("HEADRACE_API_KEY", "none"),
)
if saved.exists():
    at = json.loads(saved.read_text())
    stream = client.responses.retrieve(at["id"], stream=True, starting_after=at["number"])
else:
    model = os.environ.get("HEADRACE_MODEL", "demo/demo")
    stream = client.responses.create(model=model, input="Tell me a story.", stream=True, background=True)
for event in stream:
    if event.type == "response.created":
        at = {"id": event.response.id}
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
    save({**at, "number": event.sequence_number})
saved.unlink()
