"""Load test of a running system: ``python -m bench --url https://…``. Starts no processes (docs/load-testing.md)."""
