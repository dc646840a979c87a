"""Reads settings and file together, so that everything that is wrong with either is reported at once."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shared.configuration.configuration import Configuration, checked_document, load_configuration
from shared.configuration.document import ConfigurationError
from shared.environment import load_settings
from shared.settings import SettingsError

_VARIABLE: Final = "HEADRACE_CONFIG"


def load_all(options: Mapping[str, str | int | Path | None]) -> Configuration:
    """Read the environment, with ``options`` of the command line before it, and the file. Raises
    :class:`ConfigurationError` with the problems of both."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = load_settings()
    except SettingsError as error:
        problems = [str(error), _problems_of_file(given.get("config") or os.environ.get(_VARIABLE))]
        raise ConfigurationError("\n".join(filter(None, problems))) from None
    return load_configuration(settings.model_copy(update=given))


def _problems_of_file(path: object) -> str:
    """Return the problems that do not depend on the settings."""
    if not path:
        return ""
    try:
        checked_document(Path(str(path)), {})
    except ConfigurationError as error:
        return str(error)
    return ""
