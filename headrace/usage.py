"""The command ``headrace usage``: calls, tokens and costs of all streams."""

from datetime import date, datetime
from typing import Annotated, Final

import typer

from headrace.api_keys import HERE, DataDir, with_redis
from headrace.table import table
from shared.broker.client import Client
from shared.usage_report import DeskUsage, Report, ReportError, parse_days, parse_dimensions

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
        return Report(*days, dimensions, await DeskUsage(client).rows(*days, None))

    report = with_redis(read, data_dir)
    typer.echo(report.csv() if as_csv else _table(report), nl=not as_csv)


def _table(report: Report) -> str:
    shown = [at for at, name in enumerate(report.head) if name in _SHOWN]
    return table([[line[at] or "-" for at in shown] for line in (report.head, *report.lines())])


def _day(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()
