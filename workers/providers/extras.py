"""Optional packages that some kinds of providers need."""

from importlib import import_module


class ExtraMissing(Exception):
    """An optional package is not installed. The message is ``thing: problem; remedy``."""


def require(module: str, what: str, extra: str) -> None:
    """Raise :class:`ExtraMissing` if ``module`` cannot be imported. ``what``: the key of the configuration that
    needs it."""
    try:
        import_module(module)
    except ImportError:
        raise ExtraMissing(f"{what}: {module} is not installed; install headrace[{extra}]") from None
