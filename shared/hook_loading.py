"""Imports the hooks that ``HEADRACE_HOOKS`` names, and closes them."""

import asyncio
import importlib
import logging
import traceback

from shared.hooks import HooksLike
from shared.settings import Settings, SettingsError

logger = logging.getLogger(__name__)


def load_hooks(settings: Settings) -> HooksLike | None:
    """Return the hooks of the settings, if there are any. Raises :class:`SettingsError`, which names the problem."""
    if settings.hooks is None:
        return None
    module_name, _, class_name = settings.hooks.partition(":")
    try:
        made = getattr(importlib.import_module(module_name), class_name)()
    except ModuleNotFoundError as error:
        remedy = "install it, or add its folder to PYTHONPATH, for every gateway and worker"
        raise SettingsError(f"HEADRACE_HOOKS: no module {error.name}; {remedy}") from None
    except AttributeError as error:
        if error.name != class_name:
            raise _failed(settings.hooks, error) from error
        raise SettingsError(f"HEADRACE_HOOKS: {module_name} has no {class_name}; check the name") from None
    except Exception as error:
        raise _failed(settings.hooks, error) from error
    if not isinstance(made, HooksLike):
        raise SettingsError(f"HEADRACE_HOOKS: {settings.hooks} lacks methods of shared.hooks.Hooks; inherit from it")
    return made


async def close_hooks(hooks: HooksLike, timeout_s: float) -> None:
    """Close the hooks of a process that stops. A failure is logged by its kind: it must not keep the process."""
    try:
        async with asyncio.timeout(timeout_s):
            await hooks.aclose()
    except Exception as error:  # noqa: BLE001  an operator's code
        logger.error("hook failed", extra={"hook": "aclose", "error": type(error).__name__})  # noqa: TRY400


def _failed(name: str, error: Exception) -> SettingsError:
    """Describe an error of the module itself, by its place: the message could contain a secret."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{type(error).__name__} in {last.filename}, line {last.lineno}"
    return SettingsError(f"HEADRACE_HOOKS: {name} cannot be made: {place}; correct it")
