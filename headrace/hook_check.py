"""The row of ``headrace check`` about hooks."""

from collections.abc import Iterator

from headrace.check_rows import OK, WRONG, Row
from shared.hook_loading import load_hooks
from shared.settings import Settings, SettingsError


def check_hooks(settings: Settings) -> Iterator[Row]:
    """Import the hooks and make their instance; no row without hooks."""
    if settings.hooks is None:
        return
    try:
        load_hooks(settings)
    except SettingsError as error:
        yield Row(WRONG, "hooks", "", str(error))
    else:
        yield Row(OK, "hooks", "", f"{settings.hooks}; the same must be set for every gateway and worker")
