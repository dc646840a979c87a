"""Command line of the model: explore a configuration or a family, and print the violations."""

import sys
import time

from tests.protocol_model.configurations import CONFIGURATIONS, FAMILIES
from tests.protocol_model.search import explore


def main(what: str) -> None:
    chosen = CONFIGURATIONS if what == "all" else FAMILIES.get(what)
    if chosen is None:
        if what not in CONFIGURATIONS:
            sys.exit(f"{what}: unknown configuration; available: all {' '.join((*FAMILIES, *CONFIGURATIONS))}")
        chosen = {what: CONFIGURATIONS[what]}
    for name, rules in chosen.items():
        began = time.monotonic()
        result = explore(rules)
        took_s = time.monotonic() - began
        print(f"== {name}: {result.states} states, {result.transitions} transitions, {took_s:.0f} s")
        if not result.is_complete:
            print("  incomplete: more than max_states states, so the goal was not looked for")
        for kind, (text, path) in [*sorted(result.violations.items()), *result.stuck.items()]:
            print(f"  VIOLATED {kind}: {text}\n    {' ; '.join(path)}")
        if result.two_answers is not None:
            print(f"  VIOLATED: a reader ended with another answer\n    {' ; '.join(result.two_answers)}")
        if result.holds:
            print("  no violation")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "small")
