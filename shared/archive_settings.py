"""The settings of the archive, a part of ``shared/settings.py``."""

from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr
from pydantic_settings import BaseSettings

_FORMS: Final = "write it as sqlite:///path/of/archive.db or postgresql://user:password@host:5432/database"


def _archive_url(secret: SecretStr) -> SecretStr:
    """Check the form. The message must not repeat the URL, which may have a password."""
    url = secret.get_secret_value()
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"sqlite", "postgresql"}:
        raise ValueError(f"not the URL of a database that is supported; {_FORMS}")
    if scheme == "sqlite":
        if not rest.startswith("/") or rest.rstrip("/") == "" or rest == "/:memory:":
            raise ValueError(f"sqlite needs the path of a file; {_FORMS}, with four slashes for an absolute path")
        return secret
    try:
        parts = urlsplit(url)
        is_complete = bool(parts.path.strip("/")) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise ValueError("invalid host or port; percent-encode /, # and ? in passwords") from None
    if not is_complete:
        raise ValueError(f"names no database; {_FORMS}")
    return secret


_Url = Annotated[SecretStr, AfterValidator(_archive_url)]


class ArchiveSettings(BaseSettings):
    #: Database for streams that have ended: sqlite:///path, relative to the working directory, or postgresql://…. The
    #: same for all gateways and workers. docs/reliability.md
    archive_url: _Url | None = None
    #: Keep each event of a stream with its cursor too, so that streams can be read again from any position.
    archive_events: bool = False
