"""Fakes with real sockets, used instead of mocks."""

from tests.fakes.answer import Answer, Call, Counts, Storage, ToolCall
from tests.fakes.provider_server import FakeProvider

__all__ = ["Answer", "Call", "Counts", "FakeProvider", "Storage", "ToolCall"]
