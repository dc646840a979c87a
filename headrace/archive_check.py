"""The row of ``headrace check`` about the archive."""

import os
from typing import Final

from headrace.check_rows import NOTE, OK, WRONG, Row
from shared.settings import Settings, SettingsError

_NAME: Final = "archive"


async def check_archive(settings: Settings) -> list[Row]:
    """Open the database and look at its schema; no row without an archive."""
    if settings.archive_url is None:
        return []
    return [Row(*await _look(settings.archive_url.get_secret_value()))]


async def _look(secret_url: str) -> tuple[str, str, str, str]:
    # Slow to load, and only with an archive.
    from sqlalchemy import make_url  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    from shared.archive import schema  # noqa: PLC0415
    from shared.archive.engine import make_engine  # noqa: PLC0415
    from shared.archive.trouble import unavailable  # noqa: PLC0415

    url = make_url(secret_url)
    about, state = url.render_as_string(hide_password=True), OK
    try:
        engine = make_engine(secret_url)
    except SettingsError as error:
        return WRONG, _NAME, "", str(error)
    if url.get_backend_name() == "sqlite" and not os.path.exists(url.database or ""):  # noqa: ASYNC240, PTH110
        return NOTE, _NAME, "", f"{about}; the first worker creates the file"
    try:
        found = await schema.read_schema(engine)
        if not schema.check(found):
            state, about = NOTE, f"{about}; its schema is {found or 'missing'}, and the first worker updates it"
    except (SQLAlchemyError, OSError) as error:
        state, about = WRONG, unavailable(error).detail
    except schema.SchemaTooNew as error:
        state, about = WRONG, str(error)
    finally:
        await engine.dispose()
    return state, _NAME, "", about
