"""The command ``headrace usage``: calls, tokens and costs of all streams."""

from contextlib import AsyncExitStack
from datetime import date, datetime
from typing import Annotated, Final

import typer

from headrace.api_keys import HERE, DataDir, with_redis
from headrace.table import table
from shared.broker.client import Client
from shared.broker.usage import UsageRow
from shared.environment import load_settings
from shared.errors import ArchiveUnavailable
from shared.printable import one_line
from shared.settings import SettingsError
from shared.usage_report import DeskUsage, Report, ReportError, UsageOfAllTimes, parse_days, parse_dimensions

#: Columns of the table; CSV has all.
_SHOWN: Final = frozenset(
    {"day", "key_id", "model", "calls", "failed_calls", "input_tokens", "output_tokens", "cost", "currency"}
)
_DAY: Final = ["%Y-%m-%d"]


def usage(
    *,
    by: Annotated[str, typer.Option(help="One or more of day, key and model, separated by commas.")] = "day",
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=_DAY, metavar="DAY", help="First day.  [default: 30 days in all]"),
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=_DAY, metavar="DAY", help="Last day, in UTC.  [default: today]"),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with all columns.")] = False,
    data_dir: DataDir = HERE,
) -> None:
    """Print calls, tokens and costs of all streams. A line is of one currency, or of calls without a price."""
    try:
        dimensions = parse_dimensions(by)
        days = parse_days(_day(first), _day(last))
    except ReportError as error:
        raise typer.BadParameter(str(error)) from error

    async def read(client: Client) -> Report:
        return Report(*days, dimensions, await _rows(client, *days))

    report = with_redis(read, data_dir)
    typer.echo(report.csv() if as_csv else _table(report), nl=not as_csv)


async def _rows(client: Client, first: date, last: date) -> list[UsageRow]:
    settings = load_settings()
    try:
        async with AsyncExitStack() as stack:
            archive = None
            if settings.archive_url is not None:
                from shared.archive.archive import open_archive  # noqa: PLC0415  slow to load
                from shared.archive.usage import ArchivedUsage  # noqa: PLC0415

                archive = ArchivedUsage(await stack.enter_async_context(open_archive(settings, migrates=False)))
            return await UsageOfAllTimes(DeskUsage(client), archive, settings.usage_days).rows(first, last, None)
    except (ArchiveUnavailable, SettingsError) as error:
        typer.echo(one_line(str(getattr(error, "detail", error))), err=True)
        raise typer.Exit(1) from None


def _table(report: Report) -> str:
    shown = [at for at, name in enumerate(report.head) if name in _SHOWN]
    return table([[line[at] or "-" for at in shown] for line in (report.head, *report.lines())])


def _day(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()
