"""Program that has imported the modules of gateways or of workers, and forks a process for each connection.

A start costs a tenth of the CPU time so; a whole test run spent a quarter of its time on imports. A child is a
process like any other and runs ``headrace`` with its own arguments, environment and log. ``python -m
tests.fork_server LISTENER MODULE…`` ends with its standard input, and its children end with it.

A connection brings one request, a line of JSON: ``arguments``, ``environment``, ``directory`` and ``log``. The
replies are two lines: the process id, and at the end the exit code, negative for a signal.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from typing import Any, Final

from headrace.__main__ import main as headrace
from headrace.die_with_parent import die_with

_READ: Final = selectors.EVENT_READ


def main() -> None:
    """Serve requests. Only a child returns from serving, and becomes its process."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, and for the processes themselves
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.freeze()  # keeps these objects out of later collections, so their pages stay shared
    if request := _serve(listener):
        _become(request)


def _serve(listener: socket.socket) -> dict[str, Any] | None:
    """Return None at the end of standard input. In a child, return its request."""
    children: dict[int, tuple[int, socket.socket]] = {}
    parent = os.getpid()
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, _READ)
        selector.register(listener, _READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if sys.stdin in ready:
                return None
            for each in ready:
                if each is listener:
                    connection, _ = listener.accept()
                    request: dict[str, Any] = json.loads(connection.makefile("rb").readline())
                    if not (pid := os.fork()):
                        die_with(parent, signal.SIGKILL)
                        return request
                    handle = os.pidfd_open(pid)
                    children[handle] = pid, connection
                    selector.register(handle, _READ)
                    connection.sendall(b"%d\n" % pid)
                elif isinstance(each, int):
                    selector.unregister(each)
                    os.close(each)
                    _report(*children.pop(each))


def _report(pid: int, connection: socket.socket) -> None:
    _, status = os.waitpid(pid, 0)
    with connection:
        try:
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        except OSError:  # the tests have ended
            return


def _become(request: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    sys.argv = ["headrace", *request["arguments"]]
    headrace()


if __name__ == "__main__":
    main()
