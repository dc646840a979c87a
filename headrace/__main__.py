"""Runs the command line as ``python -m headrace``; the supervisor starts its children this way."""

from headrace.cli import app

app(prog_name="headrace")
