"""The settings of WebSockets, a part of ``shared/settings.py``."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings


class WebSocketSettings(BaseSettings):
    #: A client that answers no ping for this long is disconnected; it can resume.
    websocket_pong_timeout_s: Annotated[float, Field(ge=1, le=86_400)] = 60
    #: Age at which a connection takes no new responses, and is closed once the last one has ended.
    websocket_life_s: Annotated[float, Field(ge=1, le=30 * 86_400)] = 3600
    #: Responses that one connection may have in progress.
    websocket_responses: Annotated[int, Field(ge=1, le=1000)] = 32
    #: Earlier inputs that a gateway keeps for open connections, for requests with ``store: false``.
    websocket_memory_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024
