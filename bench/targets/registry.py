"""Which targets there are. Each is imported when it is asked for: their peers need not be installed."""

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
    """None where it is not installed. ``settings``: environment for Headrace."""
    if name == "headrace":
        return Headrace(settings)
    kind = _class(name)
    return kind() if kind is not None and kind.installed() else None


def printed(name: str) -> str:
    """As a report prints it."""
    kind = _class(name)
    return name if kind is None else kind.name


def _class(name: str) -> _TargetClass | None:
    try:
        module = importlib.import_module(f"bench.targets.{name}")
    except ModuleNotFoundError:
        return None
    return cast("_TargetClass", getattr(module, _CLASSES[name]))
