"""Measures the CPU time and memory that the checks of a request's content take: ``python -m bench.request_cost``.

Each body is as expensive as the budget of a request allows (``shared/schemas/request_budget.py``), or is the body of
an attack that is refused. Figures are for each body and for each of its bytes; ``steps`` is the parser's own count.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from shared.errors import RequestError
from shared.schemas import RequestBudget, parse_chat_request

_KIBIBYTE: Final = 1024
Schema = dict[str, Any]


def _body(*tools: Schema) -> bytes:
    named = [{"type": "function", "function": {"name": f"f{at}", "parameters": t}} for at, t in enumerate(tools)]
    return json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "x"}], **({"tools": named} if tools else {})}
    ).encode()


def _properties(count: int, schema: Callable[[int], Schema]) -> Schema:
    return {"properties": {f"p{at}": schema(at) for at in range(count)}}


def _lattice(count: int) -> Schema:
    definitions: Schema = {f"a{count}": {}}
    for at in range(count):
        others = [{"$ref": f"#/$defs/a{to}"} for to in (at + 1, *range(at))]
        definitions[f"a{at}"] = {"allOf": others}
    return {"$defs": definitions, "$ref": "#/$defs/a0"}


def _chain(count: int) -> Schema:
    definitions: Schema = {f"a{at}": {"items": {"$ref": f"#/$defs/a{at + 1}"}} for at in range(count)}
    return {"$defs": {**definitions, f"a{count}": {}}, "$ref": "#/$defs/a0"}


BODIES: Final[dict[str, bytes]] = {
    "no schema": _body(),
    "128 tools of 60 properties": _body(*[_properties(60, lambda at: {"type": "string"})] * 128),
    "12,000 schemas in place": _body(*[_properties(1_900, lambda at: {"allOf": [{}, {}]})] * 3),
    "a chain of 1,900 references": _body(_chain(1_900)),
    "270 small patterns": _body({"allOf": [{"pattern": f"^(a|b)?c{at}"} for at in range(270)]}),
    "100 patterns of digits": _body({"allOf": [{"pattern": f"\\d{{9}}{at}"} for at in range(100)]}),
    "refused: 1,000 patterns `(?=a)\\w{200}`": _body(
        _properties(1_000, lambda at: {"pattern": f"(?=a)\\w{{200}}{at}"})
    ),
    "refused: a lattice of 40 references": _body(_lattice(40)),
    "refused: patterns at the limit": _body(*[{"pattern": f"(?=a)\\w{{22}}{at}"} for at in range(10)]),
}


def main() -> None:
    parse_chat_request(_body({"pattern": "a"}))  # loads what is loaded once
    print("| body | bytes | CPU ms | µs a byte | memory MiB | memory a byte | steps a byte | outcome |")
    print("|---|---|---|---|---|---|---|---|")
    for name, body in BODIES.items():
        print("| " + " | ".join([name, *_figures(body)]) + " |")


def _figures(body: bytes) -> Iterator[str]:
    budget = RequestBudget()
    before = _peak_kib(reset=True)
    started = time.process_time()
    try:
        parse_chat_request(body, budget)
        outcome = "accepted"
    except RequestError:
        outcome = "refused"
    seconds = time.process_time() - started
    grown = _peak_kib() - before
    yield f"{len(body):,}"
    yield f"{seconds * 1e3:.1f}"
    yield f"{seconds * 1e6 / len(body):.2f}"
    yield f"{grown / _KIBIBYTE:.1f}"
    yield f"{grown * _KIBIBYTE / len(body):.0f}"
    yield f"{budget.steps / len(body):.2f}"
    yield outcome


def _peak_kib(*, reset: bool = False) -> int:
    """Return the peak of the memory of this process since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0])


if __name__ == "__main__":
    main()
