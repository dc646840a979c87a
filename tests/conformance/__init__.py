"""Every client against every provider: one table of what was run, see ``docs/compatibility.md``.

The conformance kit in ``conformance/`` is another thing: it checks the resumption of any server, from outside.
"""
