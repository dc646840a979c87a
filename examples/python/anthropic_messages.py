"""Streams a message. Kill it and start it again: Headrace's own API reads the rest.

Needs `pip install httpx httpx-sse anthropic`.
"""

import json
import os
from pathlib import Path

import httpx
import httpx_sse
from anthropic import Anthropic

saved = Path("anthropic_messages.json")


def save(at: dict[str, object]) -> None:
    saved.with_suffix(".new").write_text(json.dumps(at))
    saved.with_suffix(".new").replace(saved)  # atomic: a kill leaves a complete file


url, key = os.environ.get("HEADRACE_URL", "http://localhost:8000"), os.environ.get("HEADRACE_API_KEY", "none")
if not saved.exists():
    raw = Anthropic(base_url=url, api_key=key).messages.with_raw_response.create(
        model=os.environ.get("HEADRACE_MODEL", "demo/demo"),
        max_tokens=1000,
        messages=[{"role": "user", "content": "Tell me a story."}],
        stream=True,
        extra_body={"on_disconnect": "continue"},  # otherwise it ends with this program
    )
    said = ""
    save({"id": raw.headers["x-stream-id"], "said": 0})
    for event in raw.parse():
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            said += event.delta.text
            print(event.delta.text, end="", flush=True)
            save({"id": raw.headers["x-stream-id"], "said": len(said)})
else:
    at, said = json.loads(saved.read_text()), ""
    stream = httpx.stream("GET", f"{url}/chat/stream/{at['id']}", headers={"Authorization": f"Bearer {key}"})
    with stream as response:
        for event in httpx_sse.EventSource(response).iter_sse():
            if event.event == "token":
                said += event.json()["token"]
                print(said[at["said"] :], end="", flush=True)
                at["said"] = max(at["said"], len(said))
saved.unlink()
