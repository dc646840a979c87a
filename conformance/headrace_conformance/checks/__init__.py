"""The checks. Importing this package registers all of them, in the order in which they run."""

from headrace_conformance.checks import cuts, resume

__all__ = ["cuts", "resume"]
