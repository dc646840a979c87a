"""Registry of targets. Each is imported on first use, because its program may not be installed."""

import importlib
from collections.abc import Mapping
from typing import Final, Protocol, cast

from bench.targets.base import Target
from bench.targets.headrace import Headrace

_CLASSES: Final = {
    "direct": "Direct",
    "in_process": "InProcess",
    "headrace": "Headrace",
    "litellm": "LiteLLM",
    "resumable_stream": "ResumableStream",
}
NAMES: Final = tuple(_CLASSES)


class _TargetClass(Protocol):
    name: str

    @staticmethod
    def installed() -> bool: ...

    def __call__(self) -> Target: ...


def make(name: str, settings: Mapping[str, str]) -> Target | None:
    """Create a target; None if it is not installed. ``settings``: environment for Headrace."""
    if name == "headrace":
        return Headrace(settings)
    kind = _class(name)
    return kind() if kind is not None and kind.installed() else None


def display_name(name: str) -> str:
    """Return the name that a report prints."""
    kind = _class(name)
    return name if kind is None else kind.name


def _class(name: str) -> _TargetClass | None:
    try:
        module = importlib.import_module(f"bench.targets.{name}")
    except ModuleNotFoundError:
        return None
    return cast("_TargetClass", getattr(module, _CLASSES[name]))
