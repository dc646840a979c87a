"""Real client programs, installed from their registries and driven by a script: see ``docs/compatibility.md``."""
