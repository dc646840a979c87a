"""Searches for patterns that compile slower than estimated: ``python -m bench.pattern_search [seconds] [seed]``.

Random patterns are changed and combined; those with the most CPU time per estimated byte survive. The estimate
(``shared/schemas/pattern_cost.py``) assumes about 8 ns. Every pattern that the estimate accepts is compiled.
"""

import contextlib
import random
import sys
import time
from collections.abc import Callable
from typing import Final

import jsonschema_rs

from shared.schemas.pattern_cost import MAX_COMPILED_BYTES, MAX_PATTERN_LENGTH, pattern_cost

_POOL: Final = 60
_SHOWN: Final = 15
_ATOMS: Final = [
    *"abk\u017fK.^$|ü\U0001f600-",
    *("\\" + kind for kind in "wWdDsSbBtnx1./-"),
    *["\\x{61}", "\\u00e9", "\\x{10FFFF}", "\\uffff", "\\p{L}", "\\P{Lu}", "\\pN", "\\p{Any}", "\\p{Script=Greek}"],
    *[
        "[a-z]",
        "[^a]",
        "[\\wb]",
        "[^\\Wb]",
        "[\\Sb]",
        "[a-\uffff]",
        "[\\x{61}-\\x{10FFFF}]",
        "[[^a]b]",
        "[]a-]",
        "[^]a]",
    ],
    *[
        "[[:^alpha:]b]",
        "[[:word:]]",
        "[a-\uffff&&[^x]]",
        "[\\w--a]",
        "[a~~[^b]]",
        "[\\s\\S]",
        "[\\d\\Da]",
        "[\\p{L}&&\\w]",
    ],
    *["(?i)", "(?s)", "(?-i)", "(?im)", "(?U)", "(?u)", "(?-u)", "(?R)"],
    *["{20}", "{0,9}", "{3,}", "*", "+", "?", "*?", "++", "{ 9 }"],
]
_AROUND: Final = ["({})", "(?:{})", "(?i:{})", "(?={})", "(?!{})", "(?<={})", "(?<!{})", "(?>{})", "[{}]", "[^{}]"]
_AROUND_ALSO: Final = ["(?:{}){{9}}", "(?P<n>{})", "(?s-i:{})", "(?:{}|){{0,30}}", "[[{}]&&[^{}]]", "(?:{}|{})+"]


def main() -> None:
    seconds, seed = [*map(int, sys.argv[1:]), 60, 1][:2] if len(sys.argv) < 3 else map(int, sys.argv[1:3])
    print(f"seed {seed}; the patterns with the most CPU time per estimated byte")
    for found, pattern in search(seconds, random.Random(seed))[:_SHOWN]:
        print(f"{found:8.1f} ns  {len(pattern):5} characters  {pattern[:100]!r}")


def search(seconds: float, chance: random.Random) -> list[tuple[float, str]]:
    """Return the worst patterns, each with its nanoseconds of CPU time per estimated byte."""
    pool = {atom: _figure(atom) for atom in _ATOMS}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pattern = _changed(chance, list(pool))
        if pattern not in pool and len(pattern) <= MAX_PATTERN_LENGTH:
            pool[pattern] = _figure(pattern)
        if len(pool) > 2 * _POOL + len(_ATOMS):
            worst = sorted(pool, key=lambda known: -pool[known])[:_POOL]
            pool = {known: pool[known] for known in (*_ATOMS, *worst)}
    return sorted(((figure, pattern) for pattern, figure in pool.items()), reverse=True)


def _changed(chance: random.Random, pool: list[str]) -> str:
    base, other = chance.choice(pool), chance.choice(pool)
    at = chance.randrange(len(base) + 1)
    changes: list[Callable[[], str]] = [
        lambda: base + other,
        lambda: base * chance.choice([2, 5, 20, 100]),
        lambda: chance.choice(_AROUND + _AROUND_ALSO).replace("{}", base).replace("{{", "{").replace("}}", "}"),
        lambda: base[:at] + chance.choice(_ATOMS) + base[at:],
        lambda: base[:at] + base[at + chance.randrange(1, 9) :],
        lambda: chance.choice(["(?i)", "(?=a)", "(?s)"]) + base,
    ]
    return chance.choice(changes)()


def _figure(pattern: str) -> float:
    try:
        size = pattern_cost(pattern).size
    except ValueError:
        return 0.0
    first = _cpu_of(pattern)
    again = min(first, _cpu_of(pattern), _cpu_of(pattern)) if first > 12 * size else first
    return again / size


def _cpu_of(pattern: str) -> int:
    options = jsonschema_rs.FancyRegexOptions(size_limit=MAX_COMPILED_BYTES)
    started = time.process_time_ns()
    with contextlib.suppress(jsonschema_rs.ValidationError):  # a refusal takes time too
        jsonschema_rs.validator_for({"pattern": pattern}, offline=True, pattern_options=options)
    return time.process_time_ns() - started


if __name__ == "__main__":
    main()
