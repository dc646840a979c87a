"""Streams an answer. Kill it and start it again: it continues after the last event that it saved."""

import json
import os
from pathlib import Path

import headrace_client

saved = Path("headrace_client_stream.json")


def save(stream: headrace_client.Stream) -> None:
    new = saved.with_suffix(".new")
    new.write_text(json.dumps({"url": stream.url, "last": stream.last_event_id}))
    new.replace(saved)  # atomic: a kill leaves a complete file


url, key = os.environ.get("HEADRACE_URL", "http://localhost:8000"), os.environ.get("HEADRACE_API_KEY")
with headrace_client.Client(url, key=key) as client:
    if saved.exists():
        at = json.loads(saved.read_text())
        stream = client.attach(at["url"], last_event_id=at["last"])
    else:
        model = os.environ.get("HEADRACE_MODEL", "demo/demo")
        stream = client.start([{"role": "user", "content": "Tell me a story."}], model=model)
        save(stream)
    for event in stream:
        match event:
            case headrace_client.Token():
                print(event.token, end="", flush=True)
            case headrace_client.Reset():
                print("\n[again, from the start]")  # a worker was lost
        save(stream)
stream.raise_for_error()
saved.unlink()
