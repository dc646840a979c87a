"""Open WebUI, driven over its own HTTP API: its first user lists the models and has a chat answered."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
from task import OPENAI_URL, TASK, cancelled, finish, run

_USER = {"name": "A", "email": "a@example.com", "password": "a-password-for-tests"}
_STARTS_WITHIN_S = 500


@contextmanager
def signed_in():
    """Start the program, sign up its first user, and yield a client with the user's token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = Path.home() / "data"
    data.mkdir()
    environment = os.environ | {
        "DATA_DIR": str(data),
        "WEBUI_SECRET_KEY": "a-secret-for-tests",
        "OPENAI_API_BASE_URL": OPENAI_URL,
        "OPENAI_API_KEY": "none",
        "ENABLE_OLLAMA_API": "false",
        # No model is loaded, and nothing is fetched from elsewhere.
        "OFFLINE_MODE": "true",
        "RAG_EMBEDDING_MODEL": "",
        "ANONYMIZED_TELEMETRY": "false",
    }
    program = Path(sys.executable).parent / "open-webui"
    with (Path.home() / "log").open("wb") as log:
        server = subprocess.Popen(
            [program, "serve", "--host", "127.0.0.1", "--port", str(port)], env=environment, stdout=log, stderr=log
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                _wait(client, server)
                token = client.post("/api/v1/auths/signup", json=_USER).raise_for_status().json()["token"]
                client.headers["Authorization"] = f"Bearer {token}"
                listed = [model["id"] for model in client.get("/api/models").raise_for_status().json()["data"]]
                if TASK.model not in listed:
                    raise LookupError(f"{TASK.model}: not listed; listed are {listed}")
                yield client
        finally:
            server.kill()
            server.wait()


def _wait(client, server):
    """Wait until the program answers."""
    ends_at = time.monotonic() + _STARTS_WITHIN_S
    while True:
        try:
            if client.get("/health").is_success:
                return
        except httpx.HTTPError:
            if server.poll() is not None or time.monotonic() > ends_at:
                raise RuntimeError(f"not started: {(Path.home() / 'log').read_text()[-1500:]}") from None
            time.sleep(0.5)


@contextmanager
def chunks(client):
    """Yield the chunks of a streamed answer."""
    body = {
        "model": TASK.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": TASK.prompt}],
    }
    with client.stream("POST", "/api/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code}: {answer.read().decode()}")
        yield _chunks_of(answer)


def _chunks_of(answer):
    for line in answer.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise RuntimeError(str(chunk["error"]))
            yield chunk


def _text_of(chunk):
    return "".join(choice["delta"].get("content") or "" for choice in chunk.get("choices", ()))


def text():
    with signed_in() as client, chunks(client) as answer:
        words = "".join(map(_text_of, answer))
    finish(text=words)


def usage():
    with signed_in() as client, chunks(client) as answer:
        counts = [chunk["usage"] for chunk in answer if chunk.get("usage")]
    finish(cached=counts[-1]["prompt_tokens_details"]["cached_tokens"])


def cancel():
    with signed_in() as client:
        with chunks(client) as answer:
            next(chunk for chunk in answer if _text_of(chunk))
        cancelled()


run(text=text, usage=usage, cancel=cancel, error=text)
