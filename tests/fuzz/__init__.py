"""A fuzzer of every parser here. It mutates good inputs, as bytes and by their structure, without measuring coverage.

``python -m tests.fuzz --seconds 3600`` takes turns at all targets. An input has failed if a target raised an error
that it does not document, took more CPU or memory than any input may, or broke an invariant of its own. A failure is
shown with its bytes and with the options that repeat it. ``tests/test_fuzz.py`` runs a fixed part.
"""
