"""Logging for every process: one line each, to stderr, ids and counts only."""

import logging

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s %(message)s"


def configure_logging(level: str) -> None:
    """``level`` for our own lines; libraries speak up only when something is wrong."""
    logging.basicConfig(format=_FORMAT, level=logging.WARNING)
    for package in ("gateway", "workers", "shared", "headrace"):
        logging.getLogger(package).setLevel(level.upper())
    # It logs what a job raises, message and all; workers.queue says which job broke without it.
    logging.getLogger("arq").setLevel(logging.CRITICAL)
