"""Conformance kit for resumable SSE streams of LLM answers.

Write a profile for an endpoint with :class:`Profile`; run the checks with ``headrace-conformance run``.
"""

from headrace_conformance.client import Endpoint, Reading, Reply, Request
from headrace_conformance.profile import Ask, Foreign, Profile, Refused, Stream, Unit
from headrace_conformance.proxy import Fault, FaultProxy
from headrace_conformance.sse import Event

__version__ = "0.3.0"

__all__ = [
    "Ask",
    "Endpoint",
    "Event",
    "Fault",
    "FaultProxy",
    "Foreign",
    "Profile",
    "Reading",
    "Refused",
    "Reply",
    "Request",
    "Stream",
    "Unit",
]
