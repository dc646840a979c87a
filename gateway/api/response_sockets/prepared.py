"""Responses to requests with ``generate: false``: prepared input for a later request, and no output."""

import time

from gateway.api.previous_responses import ComposedRequest
from gateway.dialects.openai_responses.response import ResponseInfo, Stored
from gateway.dialects.openai_responses.stream import ResponseEvents
from gateway.live.batch import Batch
from shared.protocol import events
from shared.protocol.events import Done, Usage
from shared.protocol.ids import EventId, new_stream_id

_NOTHING = events.encode(Done("stop", None, Usage(0, 0)))


def prepared_response(composed: ComposedRequest, previous: str | None) -> tuple[str, bytes]:
    """Return the id of a response without output, and its frames. No stream has this id."""
    stream_id, options, chat_request = new_stream_id(), composed.options, composed.chat_request
    stored = Stored(False, previous, options.encrypts_reasoning, options.echoed, options.forms)
    info = ResponseInfo(
        stream_id, chat_request.model, int(time.time()), stored, chat_request.metadata or {}, options.large
    )
    frames = ResponseEvents(info).render(Batch([(b"0-0", _NOTHING)], EventId(0, 1), ended=True))
    return stream_id, frames
