"""The reason why the archive's database cannot be used."""

from typing import Final

from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
)

from shared.errors import ArchiveUnavailable
from shared.settings import SettingsError

#: States of PostgreSQL that no waiting changes: wrong user or password, no such database, no right.
_FINAL: Final = ("28", "3D", "42501")
#: The value is invalid, breaks a constraint, or is too large.
_ABOUT_DATA: Final = ("22", "23", "54")
_REMEDY: Final = "check HEADRACE_ARCHIVE_URL and its database"


def unavailable(error: SQLAlchemyError | OSError | TimeoutError) -> ArchiveUnavailable:
    """Return the error for a caller. Its detail has no value of a statement, since those are content."""
    return ArchiveUnavailable(detail=f"archive: {reason_of(error)}; {_REMEDY}")


def reason_of(error: BaseException) -> str:
    """Return the reason without content. Messages of failed statements can have some; those of connections have
    none."""
    if isinstance(error, TimeoutError):
        return "the database does not answer in time"
    if not isinstance(error, DBAPIError):
        return type(error).__name__
    original = error.orig
    state = getattr(original, "sqlstate", None)
    if state is not None:
        return f"{type(original).__name__} {state}"
    if isinstance(error, OperationalError) or type(error) is DatabaseError:
        return str(original).strip().partition("\n")[0]
    return type(original).__name__


def is_about_data(error: ArchiveUnavailable) -> bool:
    """Return True if the database cannot take the values that it was given: it can still be used with others."""
    cause = error.__cause__
    if type(cause) is StatementError:  # a value had no form for the database; its subclasses have other reasons
        return True
    state = getattr(getattr(cause, "orig", None), "sqlstate", None) or ""
    return isinstance(cause, (DataError, IntegrityError)) or state.startswith(_ABOUT_DATA)


def refuse_final(error: SQLAlchemyError | OSError) -> None:
    """Raise :class:`SettingsError` if the setting itself is wrong, so that waiting is pointless."""
    reason = reason_of(error)
    state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    is_final = state.startswith(_FINAL) or any(text in reason for text in _FINAL_TEXTS)
    if is_final:
        raise SettingsError(f"HEADRACE_ARCHIVE_URL: the database cannot be used: {reason}; correct it") from None


#: Of connections that failed, which have no state; and of SQLite.
_FINAL_TEXTS: Final = (
    *("password authentication failed", "no password supplied", "does not exist", "pg_hba.conf"),
    *("unable to open database file", "file is not a database", "readonly database", "already exists"),
)
