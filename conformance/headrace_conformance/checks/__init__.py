"""The checks. Importing this package registers all of them."""

from headrace_conformance.checks import cursors, cuts, endings, idempotency, readers, resume, wire

__all__ = ["cursors", "cuts", "endings", "idempotency", "readers", "resume", "wire"]
