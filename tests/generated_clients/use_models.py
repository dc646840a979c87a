"""Uses the models that datamodel-code-generator has written into ``models.py``; its argument is the URL."""

import sys
import time

import httpx
import models

MESSAGES = [{"role": "user", "content": "Count to 3"}]

with httpx.Client(base_url=sys.argv[1]) as http:
    request = models.ChatRequest.model_validate({"model": "demo/demo", "messages": MESSAGES, "max_tokens": 50})
    body = request.model_dump(mode="json", exclude_none=True)
    accepted = models.Accepted.model_validate(http.post("/chat", json=body).raise_for_status().json())
    while True:
        answer = models.StreamStatus.model_validate(http.get(accepted.status_url).raise_for_status().json())
        if answer.ended_at is not None:
            break
        time.sleep(0.05)
    assert answer.text
    assert models.StreamList.model_validate(http.get("/chat").json()).streams
    assert models.ModelList.model_validate(http.get("/v1/models").json()).data
    refused = http.post("/chat", json=body | {"max_token": 5})
    assert models.ErrorBody.model_validate(refused.json()).error.code == "invalid_request"
