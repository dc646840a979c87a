"""Options that several commands have, and the loading of the configuration."""
# ruff: noqa: PLC0415

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn
from urllib.parse import urlsplit

import typer

from shared.printable import printable

if TYPE_CHECKING:
    from shared.configuration.configuration import Configuration


def check_key(key: str | None) -> str | None:
    if key is not None and not (key.isascii() and key.isprintable()):  # the message must not repeat it
        raise typer.BadParameter("API keys are printable ASCII; check it for line breaks and other characters")
    return key


Host = Annotated[str | None, typer.Option(help="Address to listen on.  [default: HEADRACE_HOST or 127.0.0.1]")]
Port = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Port to listen on.  [default: HEADRACE_PORT or 8000]")
]


def check_url(url: str | None) -> str | None:
    """Return the URL without a slash at its end. Raises :class:`typer.BadParameter`."""
    if url is None:
        return None
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{url} must begin with http:// or https://")
    try:
        parts = urlsplit(url)
        is_valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise typer.BadParameter(f"{url}: invalid host or port; use, for example, {LOCAL_URL}")
    return url.rstrip("/")


LOCAL_URL: Final = "http://127.0.0.1:8000"
Url = Annotated[str, typer.Option(envvar="HEADRACE_URL", callback=check_url, help="URL of a gateway.")]
Key = Annotated[
    str | None,
    typer.Option(envvar="HEADRACE_API_KEY", callback=check_key, help="API key, if the gateway requires one."),
]

Config = Annotated[
    Path | None,
    typer.Option(help="File with providers, aliases and prices.  [default: HEADRACE_CONFIG]", show_default=False),
]


def configured(**options: str | int | Path | None) -> "Configuration":
    """Load settings and file; command line options override the environment."""
    from shared.configuration.document import ConfigurationError
    from shared.configuration.loading import load_all

    try:
        return load_all(options)
    except ConfigurationError as error:
        fail(str(error), code=2)


def fail(message: str, *, code: int) -> NoReturn:
    print(printable(message), file=sys.stderr)
    raise typer.Exit(code)
