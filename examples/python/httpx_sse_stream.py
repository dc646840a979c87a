"""Streams an answer. Kill it and start it again: it continues after the last event that it saved.

Needs `pip install httpx httpx-sse`.
"""

import json
import os
from pathlib import Path

import httpx
import httpx_sse

saved = Path("httpx_sse_stream.json")


def save(at: dict[str, object]) -> None:
    saved.with_suffix(".new").write_text(json.dumps(at))
    saved.with_suffix(".new").replace(saved)  # atomic: a kill leaves a complete file


headers = {"Authorization": f"Bearer {os.environ.get('HEADRACE_API_KEY', 'none')}"}
with httpx.Client(
    base_url=os.environ.get("HEADRACE_URL", "http://localhost:8000"), headers=headers, timeout=30
) as client:
    if saved.exists():
        at = json.loads(saved.read_text())
    else:
        model = os.environ.get("HEADRACE_MODEL", "demo/demo")
        body = {"model": model, "messages": [{"role": "user", "content": "Tell me a story."}]}
        answer = client.post("/chat", json=body)
        if answer.is_error:
            raise SystemExit(answer.json()["error"]["message"])
        at = {"url": answer.json()["stream_url"], "last": ""}
        save(at)
    with httpx_sse.connect_sse(client, "GET", at["url"], headers={"Last-Event-ID": at["last"]}) as source:
        for event in source.iter_sse():
            if event.event == "start" and event.json().get("reset"):
                print("\n[again, from the start]")  # a worker was lost: discard the text so far
            if event.event == "token":
                print(event.json()["token"], end="", flush=True)
            if event.id:
                save({**at, "last": event.id})
saved.unlink()
