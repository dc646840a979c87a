"""The command ``headrace keys``: API keys for gateways with ``HEADRACE_AUTH=keys``, stored in Redis."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, NoReturn, TypeVar
from urllib.parse import urlsplit

import typer

from headrace import data_dir
from headrace.key_options import parse_budgets, parse_field_paths, parse_life, parse_patterns
from headrace.recorded import act
from shared.broker.api_keys import (
    create_api_key,
    find_api_key,
    is_key_id,
    list_api_keys,
    new_key_id,
    revoke_api_key,
)
from shared.broker.audit_log import ActRefused
from shared.broker.budgets import BudgetUse, read_budget_uses
from shared.broker.client import Client, connect
from shared.broker.link_revocations import revoke_links as revoke_links_of
from shared.broker.tls_diagnosis import diagnose
from shared.broker.trouble import Reason
from shared.budgets import amount_text
from shared.environment import load_settings
from shared.errors import BrokerUnavailable
from shared.principal_ids import is_key_name, is_principal
from shared.printable import one_line, printable
from shared.rate_limits import LIMIT_NAMES, account_of
from shared.scopes import DEFAULT_SCOPES, Scope
from shared.settings import Settings, SettingsError
from shared.webhook_hosts import WebhookHosts, WebhookUrlRefused

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys, and revoke links.")

_DEFAULT_SCOPES: Final = ",".join(scope for scope in Scope if scope in DEFAULT_SCOPES)

DataDir = Annotated[
    Path,
    typer.Option(
        envvar="HEADRACE_DATA_DIR",
        help="Data directory of the running `headrace up`; used if HEADRACE_REDIS_URL is unset.",
    ),
]
BudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="AMOUNT",
        help="Such as '5 USD', '2000000 tokens', or both: '5 USD,2000000 tokens'.  [default: no budget]",
    ),
]
Limit = Annotated[int | None, typer.Option(min=0, help="0 = unlimited.  [default: the server-wide limit]")]
HERE: Final = Path(".headrace")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Owner of the key. Keys of one owner share their streams.")],
    *,
    scopes: Annotated[
        str, typer.Option(help="Permissions: chat, read, cancel, admin for /ops, and act_for for X-Headrace-User.")
    ] = _DEFAULT_SCOPES,
    expires_in: Annotated[
        str | None, typer.Option(metavar="TIME", help="Such as 90d, 12h or 30m.  [default: never]")
    ] = None,
    requests_per_minute: Limit = None,
    tokens_per_minute: Limit = None,
    tokens_per_day: Limit = None,
    concurrent_streams: Limit = None,
    stored_bytes: Limit = None,
    budget_day: BudgetOption = None,
    budget_month: BudgetOption = None,
    models: Annotated[
        str | None,
        typer.Option(help="Allowed models, such as 'openai/*,fast'; * is any text.  [default: all]"),
    ] = None,
    deny: Annotated[
        str,
        typer.Option(help="Fields, tools and betas that requests may not have, such as 'mcp_servers,tools.bash'."),
    ] = "",
    webhook_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Receiver of the endings of its streams.")
    ] = None,
    priority: Annotated[
        str | None,
        typer.Option(help="batch: all its streams wait behind interactive ones.  [default: requests choose]"),
    ] = None,
    data_dir: DataDir = HERE,
) -> None:
    """Create a key and print it. It is never shown again.

    To rotate a key: create another of the same name, switch the clients over, and revoke the old one. Links of
    `POST /chat/{id}/tickets` end with the key that made them.
    """
    if not is_key_name(name):
        raise typer.BadParameter("use 1 to 64 letters, digits, and . _ @ -", param_hint="NAME")
    granted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    if unknown := sorted(set(granted) - set(Scope)):
        problem = f"unknown scope {', '.join(unknown)}; use {', '.join(Scope)}"
        raise typer.BadParameter(problem, param_hint="--scopes")
    if not granted:
        raise typer.BadParameter(f"no scope; use {', '.join(Scope)}", param_hint="--scopes")
    life_s = None if expires_in is None else parse_life(expires_in)
    given = (requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_streams, stored_bytes)
    limits = {limit: n for limit, n in zip(LIMIT_NAMES, given, strict=True) if n is not None}
    allowed = None if models is None else parse_patterns(models)
    denied = parse_field_paths(deny)
    budgets = parse_budgets(budget_day or (), budget_month or ())
    if webhook_url is not None:
        _check_webhook(webhook_url)
    if priority not in {None, "batch"}:
        raise typer.BadParameter("use batch, or leave it out", param_hint="--priority")

    async def work(client: Client) -> None:
        others = [each.id for each in await list_api_keys(client) if each.name == name and not each.has_expired]
        key_id = new_key_id()
        async with act(
            client,
            "key.create",
            key_id,
            name=name,
            scopes=",".join(granted),
            expires_in=expires_in or "",
            limits=",".join(f"{limit}={n}" for limit, n in limits.items()),
            models=",".join(allowed or ()),
            denied=",".join(denied),
            priority=priority or "",
            webhook=urlsplit(webhook_url or "").netloc,  # the rest may be a secret
            budget_day=budgets.day.text,
            budget_month=budgets.month.text,
        ):
            key, presented = await create_api_key(
                client,
                name,
                granted,
                key_id=key_id,
                life_s=life_s,
                limits=limits,
                models=allowed,
                denied=denied,
                webhook_url=webhook_url,
                priority=priority or "",
                budgets=budgets,
            )
        if others:
            known = f"key {others[0]}" if len(others) == 1 else f"{len(others)} other keys"
            typer.echo(f"{name} keeps {known}; headrace keys revoke ends one", err=True)
        typer.echo(f"key {key.id} of {name}, shown this once:", err=True)
        typer.echo(presented)

    with_redis(work, data_dir)


@app.command(name="list")
def list_(*, data_dir: DataDir = HERE) -> None:
    """List the keys, without their secrets."""

    async def work(client: Client) -> None:
        keys = await list_api_keys(client)
        uses = await read_budget_uses(client, {key.id: key.budgets for key in keys})
        if not keys:
            typer.echo("no API keys yet; create one with `headrace keys create NAME`", err=True)
        for key in keys:
            expires = "never expires" if key.expires_at is None else f"expires {_day(key.expires_at)}"
            limits = "".join(f"  {limit}={n}" for limit, n in key.limits.items())
            models = "" if key.models is None else f"  models={','.join(key.models)}"
            denied = f"  denied={','.join(key.denied)}" if key.denied else ""
            webhook = f"  webhook={urlsplit(key.webhook_url).netloc}" if key.webhook_url else ""
            scopes = ",".join(key.scopes)
            budgets = "".join(f"  {_use_text(use)}" for use in uses[key.id])
            priority = f"  priority={key.priority}" if key.priority else ""
            rights = f"{limits}{budgets}{models}{denied}{webhook}{priority}"
            line = f"{key.id}  {key.name}  {scopes}  created {_day(key.created_at)}  {expires}{rights}"
            typer.echo(one_line(line))

    with_redis(work, data_dir)


@app.command()
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the key, from `headrace keys list`; not the key itself.")
    ],
    *,
    data_dir: DataDir = HERE,
) -> None:
    """Revoke a key. Within seconds, gateways refuse it and its links, and close their connections."""
    if not is_key_id(key_id):  # the message must not repeat it: it may be the key itself
        raise typer.BadParameter("use the id, 12 hexadecimal digits, from `headrace keys list`", param_hint="ID")

    async def work(client: Client) -> None:
        known = await find_api_key(client, key_id)
        async with act(client, "key.revoke", key_id, name=known.name if known else ""):
            if not await revoke_api_key(client, key_id):
                raise ActRefused(
                    f"key {key_id}: not found, perhaps expired; links that it made are revoked; "
                    "see `headrace keys list`"
                )

    with_redis(work, data_dir)


@app.command(name="revoke-links")
def revoke_links(
    principal: Annotated[
        str, typer.Argument(help="Owner of the links: key:NAME of API keys, or jwt:SUB of JSON Web Tokens.")
    ],
    *,
    data_dir: DataDir = HERE,
) -> None:
    """Revoke all links that a principal has made until now. Within seconds, gateways refuse them and close their
    connections.

    These are the links of `POST /chat/{id}/tickets` and the `stream_url` of `POST /chat`. Keys and tokens stay valid.
    The links of the users for whom they act end too; to end those of one user only, name key:NAME/USER or
    jwt-user:SUB/USER.
    """
    if not is_principal(principal):
        problem = "use key:NAME or jwt:SUB; for one of their users key:NAME/USER or jwt-user:SUB/USER"
        raise typer.BadParameter(problem, param_hint="PRINCIPAL")

    async def work(client: Client) -> None:
        async with act(client, "links.revoke", principal):
            await revoke_links_of(client, account_of(principal))
        typer.echo(f"links of {principal}: revoked", err=True)

    with_redis(work, data_dir)


def with_redis(work: Callable[[Client], Awaitable[T]], directory: Path) -> T:
    """Run ``work`` with the Redis of the settings, or of the ``headrace up`` in ``directory``."""
    settings = _settings()
    url = settings.redis_url
    if "redis_url" not in settings.model_fields_set:
        try:
            url = data_dir.broker_url(directory) or url
        except data_dir.DataDirError as error:
            _fail(str(error))

    async def run() -> T:
        client = connect(url)
        try:
            return await work(client)
        except BrokerUnavailable as error:
            _fail(_explain(await diagnose(client, error)))
        finally:
            await client.aclose()

    return asyncio.run(run())


def _explain(error: BrokerUnavailable) -> str:
    own = ", or pass --data-dir of the running `headrace up`" if error.reason == Reason.REFUSED else ""
    return error.detail + own


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        _fail(str(error))


def _use_text(use: BudgetUse) -> str:
    limit, used, reserved = (amount_text(use.kind, n, use.currency) for n in (use.limit, use.used, use.reserved))
    return f"budget_{use.period}={limit} (used {used}, reserved {reserved})"


def _check_webhook(url: str) -> None:
    try:
        WebhookHosts().check(url, is_trusted=True)
    except WebhookUrlRefused as error:
        raise typer.BadParameter(str(error), param_hint="--webhook-url") from None
    if not _settings().webhook_secret:
        typer.echo("HEADRACE_WEBHOOK_SECRET: not set here; workers need it to send webhooks", err=True)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _fail(message: str) -> NoReturn:
    typer.echo(printable(message), err=True)
    raise typer.Exit(1)
