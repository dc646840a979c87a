"""``headrace keys``: the API keys that gateways with ``HEADRACE_AUTH=keys`` let in. Kept in Redis, known at once."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from headrace import data_dir
from shared.broker.api_keys import create_api_key, list_api_keys, revoke_api_key
from shared.broker.client import Client, connect
from shared.errors import BrokerUnavailable
from shared.rate_limits import LIMIT_NAMES
from shared.settings import Settings, SettingsError, load_settings

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")

SCOPES: Final = ("chat", "read", "cancel", "admin")
_USUAL: Final = "chat,read,cancel"
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

DataDir = Annotated[
    Path,
    typer.Option(envvar="HEADRACE_DATA_DIR", help="Of the `headrace up` that is meant, without HEADRACE_REDIS_URL."),
]
Limit = Annotated[int | None, typer.Option(min=0, help="0 for any number.  [default: what is set for all]")]
_HERE: Final = Path(".headrace")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is. Keys of one name share their streams.")],
    *,
    scopes: Annotated[str, typer.Option(help="What it may do: chat, read, cancel, and admin for /ops.")] = _USUAL,
    expires_in: Annotated[
        str | None, typer.Option(metavar="TIME", help="As 90d, 12h, 30m.  [default: never]")
    ] = None,
    requests_per_minute: Limit = None,
    tokens_per_minute: Limit = None,
    tokens_per_day: Limit = None,
    concurrent_streams: Limit = None,
    data_dir: DataDir = _HERE,
) -> None:
    """Prints the key, this once. To rotate: create another of the same name, change over, revoke the old one.
    The links of `POST /chat/{id}/tickets` end with the key that made them."""
    if not re.fullmatch(r"[\w.@-]{1,64}", name):
        raise typer.BadParameter("1 to 64 letters, digits, and . _ @ -", param_hint="NAME")
    asked = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    if unknown := set(asked) - set(SCOPES) or not asked:
        named = ", ".join(sorted(unknown)) if isinstance(unknown, set) else "nothing"
        raise typer.BadParameter(f"{named}: there is {', '.join(SCOPES)}", param_hint="--scopes")
    life_s = None if expires_in is None else _seconds(expires_in)
    said = (requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_streams)
    limits = {limit: n for limit, n in zip(LIMIT_NAMES, said, strict=True) if n is not None}

    async def work(client: Client) -> None:
        key, presented = await create_api_key(client, name, asked, life_s=life_s, limits=limits)
        typer.echo(f"key {key.id} of {name}, shown this once:", err=True)
        typer.echo(presented)

    _with_redis(work, data_dir)


@app.command(name="list")
def list_(*, data_dir: DataDir = _HERE) -> None:
    """The keys that there are, without their secrets."""

    async def work(client: Client) -> None:
        for key in await list_api_keys(client):
            expires = "never expires" if key.expires_at is None else f"expires {_day(key.expires_at)}"
            limits = "".join(f"  {limit}={n}" for limit, n in key.limits.items())
            scopes = ",".join(key.scopes)
            typer.echo(f"{key.id}  {key.name}  {scopes}  created {_day(key.created_at)}  {expires}{limits}")

    _with_redis(work, data_dir)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it; not the key.")],
    *,
    data_dir: DataDir = _HERE,
) -> None:
    """Within seconds gateways refuse the key and the links that it made, and cut the connections by either."""

    async def work(client: Client) -> None:
        if not await revoke_api_key(client, key_id):
            _fail(f"there is no key {key_id}")

    _with_redis(work, data_dir)


def _with_redis(work: Callable[[Client], Awaitable[None]], directory: Path) -> None:
    settings = _settings()
    url = settings.redis_url
    if "redis_url" not in settings.model_fields_set:
        url = data_dir.broker_url(directory) or url

    async def run() -> None:
        client = connect(url)
        try:
            await work(client)
        except BrokerUnavailable:
            _fail("Redis does not answer: set HEADRACE_REDIS_URL, or say --data-dir of the `headrace up` that runs")
        finally:
            await client.aclose()

    asyncio.run(run())


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        _fail(str(error))


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise typer.BadParameter("a number with s, m, h or d, as 90d", param_hint="--expires-in")
    return int(match[1]) * _SECONDS[match[2]]


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
