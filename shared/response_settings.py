"""The settings of streamed responses, a part of ``shared/settings.py``."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings


class ResponseSettings(BaseSettings):
    heartbeat_s: Annotated[float, Field(gt=0, le=86_400)] = 15
    #: Silence after which a response begins that waits for its first output, because its client takes the status for
    #: the outcome. Errors then come inside the stream. 0: never.
    early_headers_s: Annotated[float, Field(ge=0, le=86_400)] = 30
    retry_ms: Annotated[int, Field(ge=0, le=86_400_000)] = 1000
    #: A client that reads nothing for this long is disconnected; it can resume.
    write_deadline_s: Annotated[float, Field(ge=1, le=86_400)] = 30
    #: Per connection; small, so that a slow client causes backpressure instead of buffering.
    send_buffer_bytes: Annotated[int, Field(ge=4096, le=2**30)] = 32 * 1024
