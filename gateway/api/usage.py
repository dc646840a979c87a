"""Reports of usage and costs: ``/v1/usage`` for a caller, ``/ops/usage`` for operators."""

from datetime import date
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from gateway.api.descriptions import MODELS, OPERATORS, native_answers
from gateway.api.error_catalog import CALLER, error_responses
from gateway.api.parameters import IsDate
from gateway.api.response_models import UsageReport
from gateway.auth.operator import Operator
from gateway.state import Caller, Gateway, GatewayState
from shared.broker.budgets import read_budget_uses
from shared.budgets import SERVER, Budgets
from shared.errors import InvalidRequest
from shared.scopes import Scope
from shared.usage_report import Dimension, Report, ReportError, parse_days, parse_dimensions

router = APIRouter()

_CSV: Final = "text/csv"
#: As for the models: in both dialects of these paths, an invalid parameter is a 400.
_RESPONSES: Final = {
    200: {"model": UsageReport, "content": {_CSV: {"schema": {"type": "string"}}}},
    **{
        400 if status == InvalidRequest.http_status else status: response
        for status, response in error_responses(*CALLER, "invalid_request", "archive_unavailable").items()
    },
}


class Wanted:
    """The parameters of a report. Raises :class:`InvalidRequest`."""

    def __init__(
        self,
        request: Request,
        first: Annotated[date | None, IsDate, Query(alias="from", description="First day, in UTC.")] = None,
        last: Annotated[
            date | None, IsDate, Query(alias="to", description="Last day, in UTC; by default today.")
        ] = None,
        by: Annotated[
            str,
            Query(
                max_length=64,
                description="One or more of `day`, `key` and `model`, separated by commas.",
                json_schema_extra={"pattern": "^(day|key|model)(,(day|key|model))*$"},
            ),
        ] = "day",
        format: Annotated[Literal["json", "csv"] | None, Query(description="By default as `Accept` says.")] = None,
    ) -> None:
        try:
            self.by: list[Dimension] = parse_dimensions(by)
            self.first, self.last = parse_days(first, last)
        except ReportError as error:
            raise InvalidRequest(str(error)) from None
        accepts_csv = request.headers.get("accept", "").partition(";")[0].strip() == _CSV
        self.as_csv = format == "csv" or (format is None and accepts_csv)


Parameters = Annotated[Wanted, Depends()]


@router.get(
    "/v1/usage",
    operation_id="get_usage",
    summary="Report usage and costs",
    tags=[MODELS],
    response_class=JSONResponse,
    responses=_RESPONSES,
)
async def usage(gateway: Gateway, caller: Caller, wanted: Parameters) -> Response:
    """Report the calls, tokens and costs of the caller's streams, and the budgets of its API key. A row is of one
    currency; a row without a cost is of calls without a price."""
    caller.need(Scope.READ)
    return await _report(gateway, wanted, caller.id, (caller.key_id or "", caller.budgets))


@router.get(
    "/ops/usage",
    operation_id="get_usage_of_all",
    summary="Report usage and costs of all callers",
    tags=[OPERATORS],
    response_class=JSONResponse,
    responses={**native_answers(None), 200: _RESPONSES[200]},
)
async def usage_of_all(gateway: Gateway, _: Operator, wanted: Parameters) -> Response:
    """Report the same of all streams, and the budgets of the server."""
    return await _report(gateway, wanted, None, (SERVER, gateway.settings.budgets))


async def _report(
    gateway: GatewayState, wanted: Wanted, principal: str | None, budgets: tuple[str, Budgets]
) -> Response:
    """Build the response. ``budgets``: with their account."""
    rows = await gateway.usage.rows(wanted.first, wanted.last, principal)
    report = Report(wanted.first, wanted.last, wanted.by, rows)
    if wanted.as_csv:
        return Response(report.csv(), media_type=_CSV)
    owner, limits = budgets
    uses = (await read_budget_uses(gateway.client, {owner: limits}))[owner]
    return JSONResponse({**report.members(), "budgets": [use.members for use in uses]})
