"""Fuzz all targets in turns for some time; the exit code is 1 if an input failed."""

import argparse
import sys
import time
from typing import Final

from tests.fuzz.running import failure_of, failures
from tests.fuzz.targets import TARGETS

#: Inputs of one target before the next one has its turn.
_TURN: Final = 200
_MOST_SHOWN: Final = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=sorted(target.name for target in TARGETS), help="only this one")
    parser.add_argument("--number", type=int, help="only this input of the target")
    options = parser.parse_args()
    chosen = [target for target in TARGETS if options.target in (None, target.name)]
    if options.number is not None:
        print(failure_of(chosen[0], options.seed, options.number) or "no failure")
        return
    until = time.monotonic() + options.seconds
    found: dict[str, list[str]] = {target.name: [] for target in chosen}
    done = 0
    while time.monotonic() < until:
        for target in chosen:
            new = failures(target, options.seed, range(done, done + _TURN), until=until)
            for failure in new[: max(0, _MOST_SHOWN - len(found[target.name]))]:
                print(failure, flush=True)
            found[target.name] += new
        done += _TURN
    total = sum(map(len, found.values()))
    print(f"{done} inputs of each of {len(chosen)} parsers, {total} failures", flush=True)
    print("\n".join(f"{name}: {len(failed)}" for name, failed in found.items() if failed))
    sys.exit(bool(total))


if __name__ == "__main__":
    main()
