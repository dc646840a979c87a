"""Chooses the tracing of a process. Separate from shared/tracing.py, which shared/otlp.py imports."""

from typing import Literal

from shared.settings import Settings
from shared.tracing import Tracing


def configure_tracing(settings: Settings, process: Literal["gateway", "worker"]) -> Tracing:
    """Return the tracing of the settings. Raises :class:`SettingsError` if its packages are missing."""
    if not settings.has_traces:
        return Tracing()
    from shared.otlp import OtlpTracing  # noqa: PLC0415  optional, and slow to load

    return OtlpTracing(process)
