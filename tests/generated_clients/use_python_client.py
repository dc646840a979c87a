"""Uses the client that openapi-python-client has generated into the folder ``client``; its argument is the URL."""

import sys
import time

from client import Client
from client.api.models_and_usage import list_models
from client.api.open_ai import create_chat_completion
from client.api.server import get_health
from client.api.streams import cancel_stream, create_stream, delete_stream, get_stream, list_streams
from client.models import (
    Accepted,
    ChatCompletion,
    ChatCompletionRequest,
    ChatRequest,
    ErrorBody,
    StreamStatus,
)

MESSAGES = [{"role": "user", "content": "Count to 3"}]
client = Client(base_url=sys.argv[1])

assert get_health.sync(client=client).status == "ok"
assert "demo/demo" in [model.id for model in list_models.sync(client=client).data]

request = ChatRequest.from_dict({"model": "demo/demo", "messages": MESSAGES, "metadata": {"tab": "7"}})
made = create_stream.sync(client=client, body=request, idempotency_key="generated")
assert isinstance(made, Accepted), made
while True:
    answer = get_stream.sync(made.stream_id, client=client)
    assert isinstance(answer, StreamStatus), answer
    if answer.status not in {"running", "queued"}:
        break
    time.sleep(0.05)
assert answer.status == "completed"
assert answer.text
assert made.stream_id in [each.stream_id for each in list_streams.sync(client=client).streams]
assert cancel_stream.sync(made.stream_id, client=client).status == "completed"
assert delete_stream.sync_detailed(made.stream_id, client=client).status_code == 204
gone = get_stream.sync(made.stream_id, client=client)
assert isinstance(gone, ErrorBody), gone
assert gone.error.code == "stream_gone"

wrong = create_stream.sync(client=client, body=ChatRequest.from_dict({"model": "none/x", "messages": MESSAGES}))
assert isinstance(wrong, ErrorBody), wrong
assert wrong.error.code == "unknown_model"

completion = ChatCompletionRequest.from_dict({"model": "demo/demo", "messages": MESSAGES})
completed = create_chat_completion.sync(client=client, body=completion)
assert isinstance(completed, ChatCompletion), completed
assert completed.choices[0].message.content
