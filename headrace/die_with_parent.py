"""The program ``python die_with_parent.py PARENT SIGNAL PROGRAM ARG…``: becomes PROGRAM; gets SIGNAL if PARENT dies.

It is run by path, as a separate program, so that no code of ours runs between fork and exec. Linux delivers the
signal (``PR_SET_PDEATHSIG`` survives exec). macOS has no equivalent: children of a killed supervisor continue there.
The broker then still holds the lock of the data directory, so that no second broker can write the same files.
"""

import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, number, *command = sys.argv[1:]
    if sys.platform == "linux":
        die_with(int(parent), int(number))
    os.execv(command[0], command)  # noqa: S606  # the purpose is to become the command


def die_with(parent: int, number: int) -> None:
    import ctypes  # noqa: PLC0415  # Linux only

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the supervisor died during the start")


if __name__ == "__main__":
    main()
