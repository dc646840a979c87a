"""Entry point of the command line, as ``headrace`` and as ``python -m headrace``; the supervisor starts its children
by the latter."""

from headrace.interrupts import end_on_interrupt


def main() -> None:
    """Run the command."""
    end_on_interrupt()
    from headrace.cli import app  # noqa: PLC0415

    app(prog_name="headrace")


if __name__ == "__main__":
    main()
