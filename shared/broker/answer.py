"""The JSON view of a stream's answer: the body of ``GET /chat/{stream_id}``, and the data of a full webhook."""

from typing import Any

import msgspec

from shared.broker.status import StreamState
from shared.protocol.transcript import Transcript


def answer_view(stream_id: str, state: StreamState, transcript: Transcript) -> dict[str, Any]:
    """Return the answer so far. ``transcript``: all of the log."""
    done, start = transcript.done, transcript.start
    return {
        "stream_id": stream_id,
        "chat_id": state.chat_id,
        "status": state.status,
        "text": transcript.text,
        "reasoning": transcript.reasoning,
        "refusal": transcript.refusal,
        "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in transcript.tool_calls
        ],
        "json": transcript.json,
        "finish_reason": state.finish_reason,
        "reason": done.reason if done else state.reason,
        "usage": msgspec.to_builtins(done.usage) if done else None,
        "usage_by_target": msgspec.to_builtins(done.usage_by_target or []) if done else [],
        "cost": msgspec.to_builtins(done.cost) if done else None,
        "usage_final": state.usage_final,
        "cost_final": msgspec.to_builtins(state.cost_final),
        "error": msgspec.to_builtins(transcript.error) if transcript.error else None,
        "model": start.model if start else state.model,
        "provider": start.provider if start else state.provider,
        "attempt": state.attempt,
        "ignored": start.ignored or [] if start else [],
        "metadata": state.metadata,
        "created_at": state.created_at,
        "started_at": state.started_at,
        "ended_at": state.ended_at,
    }
