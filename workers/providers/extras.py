"""Optional packages that some kinds of providers need."""

from importlib.util import find_spec

from shared.configuration.entries import ProviderEntry

#: Module, and extra of this package, by kind.
_OF_KIND = {"anthropic-bedrock": ("boto3", "bedrock"), "anthropic-vertex": ("google.auth", "vertex")}


class ExtraMissing(Exception):
    """An optional package is not installed. The message is ``thing: problem; remedy``."""


def require_extras(entry: ProviderEntry) -> None:
    """Raise :class:`ExtraMissing` if a provider needs a package that is not installed."""
    if entry.kind in _OF_KIND:
        _require(*_OF_KIND[entry.kind], f"kind {entry.kind}")
    if entry.auth == "entra":
        _require("azure.identity", "azure", "auth entra")


def _require(module: str, extra: str, needed_by: str) -> None:
    try:
        is_installed = find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        is_installed = False
    if not is_installed:
        raise ExtraMissing(f"{needed_by} needs {module}, which is not installed; install headrace[{extra}]")
