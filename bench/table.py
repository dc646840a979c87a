"""Medians of a shape as a Markdown table, which is also readable in a terminal."""

from collections.abc import Mapping
from typing import Final

from bench.figures import FIGURES, Versus
from bench.markdown import NOTHING, aligned
from bench.results import Summary
from bench.shapes import Shape
from bench.targets.registry import display_name

#: The second follows from the share of the offered rate.
_LEFT_OUT: Final = frozenset({"cpu_all_us", "tokens_per_s"})


def shape_table(shape: Shape, by_target: Mapping[str, Summary], *, brief: bool = False) -> str:
    """Return a table with a row for each target. ``brief``: without figures that follow from others, and with the
    first comparison alone."""
    left_out = _LEFT_OUT if brief and "share" in shape.figures else frozenset()
    shown = [
        name
        for name in shape.figures
        if name not in left_out and any(name in summary.values for summary in by_target.values())
    ]
    versus = [v for v in shape.versus if v.baseline in by_target][: 1 if brief else None]
    head = ["", *(FIGURES[name].label for name in shown), *(v.label for v in versus), "problems"]
    rows = [
        [
            display_name(target),
            *(figure_text(name, summary) for name in shown),
            *(_versus(v, target, by_target) for v in versus),
            summary.problems,
        ]
        for target, summary in by_target.items()
    ]
    return aligned([head, *rows])


def figure_text(name: str, summary: Summary) -> str:
    """Return the median, with those of each process."""
    value = summary.values.get(name)
    if value is None:
        return NOTHING
    figure = FIGURES[name]
    text = f"{value:,.{figure.digits}f}"
    roles = {k.rpartition(".")[2]: v for k, v in summary.values.items() if k.startswith(f"{name}.")}
    if figure.roles and len(roles) > 1:
        text += " (" + ", ".join(f"{role} {v:,.{figure.digits}f}" for role, v in roles.items()) + ")"
    return text


def _versus(versus: Versus, target: str, by_target: Mapping[str, Summary]) -> str:
    value = by_target[target].values.get(versus.figure)
    base = by_target[versus.baseline].values.get(versus.figure)
    if value is None or base is None:
        return NOTHING
    against = versus.of(value, base)
    return NOTHING if against is None else f"{against:.2f}"
