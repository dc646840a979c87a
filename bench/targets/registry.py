"""Registry of targets. Each is imported on first use, because its program may not be installed."""

import importlib
from collections.abc import Mapping
from typing import Final, Protocol, cast

from bench.targets.base import Target

_CLASSES: Final = {
    "direct": "Direct",
    "in_process": "InProcess",
    "headrace": "Headrace",
    "headrace_workers": "HeadraceWorkers",
    "headrace_up": "HeadraceUp",
    "headrace_tls": "HeadraceTls",
    "headrace_one_node": "HeadraceOneNode",
    "headrace_two_nodes": "HeadraceTwoNodes",
    "headrace_three_nodes": "HeadraceThreeNodes",
    "headrace_1ms": "Headrace1ms",
    "headrace_5ms": "Headrace5ms",
    "headrace_25ms": "Headrace25ms",
    "litellm": "LiteLLM",
    "resumable_stream": "ResumableStream",
    "smg": "Smg",
    "tensorzero": "TensorZero",
}
_CLUSTERS: Final = ("headrace_one_node", "headrace_two_nodes", "headrace_three_nodes")
_FAR: Final = ("headrace_1ms", "headrace_5ms", "headrace_25ms")
_MODULES: Final = {
    "headrace_workers": "headrace",
    **dict.fromkeys(_CLUSTERS, "headrace_cluster"),
    **dict.fromkeys(_FAR, "headrace_far"),
}
NAMES: Final = tuple(_CLASSES)
#: Targets of a run that names none: those on a cluster, or with a distant Redis, answer other questions.
USUAL: Final = tuple(name for name in NAMES if name not in (*_CLUSTERS, *_FAR))


class _TargetClass(Protocol):
    name: str

    @staticmethod
    def installed() -> bool: ...

    def __call__(self, *settings: Mapping[str, str]) -> Target: ...


def make(name: str, settings: Mapping[str, str]) -> Target | None:
    """Create a target; None if it is not installed. ``settings``: environment for Headrace."""
    kind = _class(name)
    if kind is None or not kind.installed():
        return None
    return kind(settings) if name.startswith("headrace") else kind()


def display_name(name: str) -> str:
    """Return the name that a report prints."""
    kind = _class(name)
    return name if kind is None else kind.name


def _class(name: str) -> _TargetClass | None:
    try:
        module = importlib.import_module(f"bench.targets.{_MODULES.get(name, name)}")
    except ModuleNotFoundError:
        return None
    return cast("_TargetClass", getattr(module, _CLASSES[name]))
