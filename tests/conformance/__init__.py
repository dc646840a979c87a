"""Every client against every provider: one table of what was run, see ``docs/compatibility.md``."""
