"""Options of ``headrace keys create``, as texts. Every function raises :class:`typer.BadParameter`."""

import re
from collections.abc import Iterable
from typing import Final

import typer

from shared.budgets import Budget, Budgets, check_currency, parse_budget
from shared.model_patterns import LONGEST_PATTERN, MOST_PATTERNS
from shared.setting_types import MOST_DENIED, is_field_path

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_life(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise typer.BadParameter("use a number with s, m, h or d, such as 90d", param_hint="--expires-in")
    return int(match[1]) * _SECONDS[match[2]]


def parse_patterns(text: str) -> list[str]:
    patterns = [pattern.strip() for pattern in text.split(",") if pattern.strip()]
    if not 0 < len(patterns) <= MOST_PATTERNS:
        raise typer.BadParameter(f"use 1 to {MOST_PATTERNS} patterns, separated by commas", param_hint="--models")
    if not all(re.fullmatch(rf"\S{{1,{LONGEST_PATTERN}}}", pattern) for pattern in patterns):
        problem = f"use patterns of 1 to {LONGEST_PATTERN} characters without spaces"
        raise typer.BadParameter(problem, param_hint="--models")
    return patterns


def parse_budgets(day: Iterable[str], month: Iterable[str]) -> Budgets:
    found = dict[str, Budget]()
    for option, texts in (("--budget-day", day), ("--budget-month", month)):
        try:
            found[option] = parse_budget(",".join(texts))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=option) from None
    budgets = Budgets(found["--budget-day"], found["--budget-month"])
    try:
        check_currency(budgets)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--budget-month") from None
    return budgets


def parse_field_paths(text: str) -> list[str]:
    paths = [path.strip() for path in text.split(",") if path.strip()]
    if len(paths) > MOST_DENIED:
        raise typer.BadParameter(f"use at most {MOST_DENIED} paths", param_hint="--deny")
    if not all(map(is_field_path, paths)):
        problem = "use paths of fields, such as mcp_servers, tools.web_search or betas.NAME"
        raise typer.BadParameter(problem, param_hint="--deny")
    return paths
