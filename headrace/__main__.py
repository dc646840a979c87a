"""``python -m headrace``: how the supervisor starts its children."""

from headrace.cli import app

app(prog_name="headrace")
