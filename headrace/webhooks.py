"""The command ``headrace webhooks``: those that were not delivered yet, or given up."""

from datetime import UTC, datetime
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from headrace.api_keys import HERE, DataDir, with_redis
from headrace.recorded import act
from shared.broker.audit_log import ActRefused
from shared.broker.client import Client
from shared.broker.deliveries import count_owed, deliver_again, list_owed
from shared.broker.scripts import StreamScripts
from shared.environment import load_settings
from shared.printable import one_line
from shared.protocol.ids import is_stream_id

#: Streams that an entry of the audit log names.
_SHOWN: Final = 5

app = typer.Typer(no_args_is_help=True, help="List webhooks that were not delivered; send them again.")


@app.command(name="list")
def list_(
    *,
    most: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Lines to print.")] = 100,
    data_dir: DataDir = HERE,
) -> None:
    """List webhooks that were given up, the latest first, and then those that wait for a further try."""

    async def work(client: Client) -> None:
        for owed in await list_owed(client, most):
            state = "given up" if owed.next_at is None else f"next try {_time(owed.next_at)}"
            why = f"  {owed.error}" if owed.error else ""
            host = urlsplit(owed.url).netloc  # the rest may be a secret
            line = (
                f"{owed.stream_id}  {owed.status}  {_time(owed.since)}  {host}  {owed.failures} failed  {state}{why}"
            )
            typer.echo(one_line(line))
        waiting, given_up = await count_owed(client)
        typer.echo(f"{waiting} waiting, {given_up} given up", err=True)

    with_redis(work, data_dir)


@app.command()
def retry(
    stream_ids: Annotated[list[str] | None, typer.Argument(metavar="ID…", help="Streams, from the list.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that were given up.")] = False,
    data_dir: DataDir = HERE,
) -> None:
    """Send webhooks again, for as long as new ones are tried. One that was delivered is sent once more."""
    if bool(stream_ids) == everything:
        raise typer.BadParameter("use ids of streams, or --all", param_hint="ID…")
    scripts = StreamScripts(load_settings())

    async def work(client: Client) -> None:
        ids = stream_ids or [owed.stream_id for owed in await list_owed(client, 10_000) if owed.next_at is None]
        shown = " ".join([*filter(is_stream_id, ids[:_SHOWN]), *(["…"] if len(ids) > _SHOWN else [])])
        async with act(client, "webhook.retry", "all given up" if everything else shown, streams=str(len(ids))):
            unknown = [each for each in ids if not await deliver_again(client, scripts, each)]
            typer.echo(f"{len(ids) - len(unknown)} to be sent again", err=True)
            if unknown:
                raise ActRefused(one_line(f"without a webhook, still running, or gone: {', '.join(unknown)}"))

    with_redis(work, data_dir)


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if ms else "now"
