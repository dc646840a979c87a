"""Two kinds of SVG chart: grouped, stacked bars; and lines."""

from collections.abc import Mapping, Sequence
from html import escape
from math import floor, log10
from typing import Final

_WIDTH, _HEIGHT = 860, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 60, 60
_COLOURS: Final = ("#2f6f9f", "#d9822b", "#5b9a4a", "#a3568c", "#777777", "#c9b03a")
#: Parts of one bar, from dark to light.
_SHADES: Final = (1.0, 0.7, 0.45, 0.25)
Stack = Mapping[str, float]


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, Stack]]) -> str:
    """Return a bar chart. ``groups``: group → bar → part → value. Bars of a name share a colour; parts are shades."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    most = max((sum(stack.values()) for group in groups.values() for stack in group.values()), default=0) * 1.1 or 1
    parts = [*_frame(title, unit, most), *_legend(names)]
    span = (_WIDTH - _LEFT - _RIGHT) / max(1, len(groups))
    width = span * 0.8 / max(1, len(names))
    for i, (label, group) in enumerate(groups.items()):
        left = _LEFT + i * span + span * 0.1
        parts.append(_text(left + span * 0.4, _HEIGHT - _BOTTOM + 18, label, "middle"))
        for name, stack in group.items():
            at = left + names.index(name) * width
            base = 0.0
            for shade, (part, value) in zip(_SHADES, stack.items(), strict=False):
                top, bottom = _y(base + value, most), _y(base, most)
                tip = escape(f"{name} {part}: {value:.1f} {unit}")
                parts.append(
                    f'<rect x="{at:.1f}" y="{top:.1f}" width="{width * 0.9:.1f}" height="{bottom - top:.1f}" '
                    f'fill="{_COLOURS[names.index(name) % len(_COLOURS)]}" fill-opacity="{shade}">'
                    f"<title>{tip}</title></rect>"
                )
                base += value
            parts.append(_text(at + width * 0.45, _y(base, most) - 4, f"{base:.0f}", "middle"))
    return _svg(parts)


def lines(title: str, unit: str, x_label: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return a line chart. ``series``: name → points, in the order to join them. Both axes begin at 0."""
    points = [point for line in series.values() for point in line]
    most_y = max((y for _, y in points), default=0) * 1.1 or 1
    most_x = max((x for x, _ in points), default=0) * 1.05 or 1
    parts = [*_frame(title, unit, most_y), *_legend(list(series))]
    parts.append(_text(_WIDTH / 2, _HEIGHT - 12, x_label, "middle"))

    def x_of(x: float) -> float:
        return _LEFT + x / most_x * (_WIDTH - _LEFT - _RIGHT)

    for x in _round_steps(most_x):
        parts.append(_text(x_of(x), _HEIGHT - _BOTTOM + 18, f"{x:g}", "middle"))
    for number, line in enumerate(series.values()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x_of(x):.1f},{_y(y, most_y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y in line:
            tip = f"<title>{x:.4g}: {y:.4g} {escape(unit)}</title>"
            parts.append(f'<circle cx="{x_of(x):.1f}" cy="{_y(y, most_y):.1f}" r="4" fill="{colour}">{tip}</circle>')
    return _svg(parts)


def _y(value: float, most: float) -> float:
    return _HEIGHT - _BOTTOM - value / most * (_HEIGHT - _TOP - _BOTTOM)


def _round_steps(most: float) -> list[float]:
    """Return three to eight round numbers up to ``most``."""
    step = 10.0 ** floor(log10(most))
    step = next(step * share for share in (1.0, 0.5, 0.2, 0.1) if most / (step * share) >= 3)
    return [round(step * i, 10) for i in range(1, int(most / step) + 1)]


def _frame(title: str, unit: str, most: float) -> list[str]:
    ground = _HEIGHT - _BOTTOM
    axis = f'<line x1="{_LEFT}" y1="{ground}" x2="{_WIDTH - _RIGHT}" y2="{ground}" stroke="#444"/>'
    parts = [_text(_LEFT, 20, title, "start", weight="bold"), _text(6, _TOP - 8, unit, "start"), axis]
    for value in _round_steps(most):
        y = _y(value, most)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{value:g}", "end"))
    return parts


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    for i, name in enumerate(names):
        x = _LEFT + 20 + i * 150
        parts.append(f'<rect x="{x}" y="30" width="10" height="10" fill="{_COLOURS[i % len(_COLOURS)]}"/>')
        parts.append(_text(x + 15, 39, name, "start"))
    return parts


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def _svg(parts: Sequence[str]) -> str:
    style = 'font-family="sans-serif" font-size="11" fill="#222"'
    view = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    ground = f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {view} {style}>', ground, *parts, "</svg>", ""])
