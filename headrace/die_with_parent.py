"""``python die_with_parent.py PARENT SIGNAL PROGRAM ARG…``: become PROGRAM; receive SIGNAL when PARENT dies.

Run by path, as a program of its own, so that nothing of ours runs between fork and exec. Linux delivers the signal
(``PR_SET_PDEATHSIG`` survives exec). macOS has nothing like it: there, what a killed supervisor leaves behind goes
on; the broker then still holds the data directory's lock, so that no second broker can write the same files.
"""

import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, number, *command = sys.argv[1:]
    if sys.platform == "linux":
        die_with(int(parent), int(number))
    os.execv(command[0], command)  # noqa: S606  # becoming the command is the point


def die_with(parent: int, number: int) -> None:
    import ctypes  # noqa: PLC0415  # Linux only

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the supervisor died first")


if __name__ == "__main__":
    main()
