"""Entry point of the command line, as ``headrace`` and as ``python -m headrace``; the supervisor starts its children
by the latter."""

import signal


def main() -> None:
    """Run the command. Ctrl-C while its modules are imported ends the process without a traceback."""
    is_handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored, as by nohup
    if is_handled:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from headrace.cli import app  # noqa: PLC0415

    if is_handled:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    app(prog_name="headrace")


if __name__ == "__main__":
    main()
