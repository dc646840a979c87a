"""Effect of Ctrl-C on a command: it ends the process silently, unless the command has something to do then."""

import signal


def end_on_interrupt() -> None:
    """Let Ctrl-C end the process from now on, without a traceback of imports. If it is ignored, as by nohup, it stays
    so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_on_interrupt() -> None:
    """Let Ctrl-C raise :class:`KeyboardInterrupt` from now on, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
