"""A generator of providers' responses: good streams of all three wires, and mutations of them in three classes.

- Kept: the meaning stays, and so must the answer, without any error.
- Broken: the structure is damaged. The answer ends by an error, or is the original.
- Texts: text deltas are dropped or repeated. The text is exactly the one that was sent.

``python -m tests.wires --streams 100000`` runs at the reading layer, ``--system 1000`` through a whole system. A
failure is shown with its number, its seed and the fewest mutations that still cause it.

Left out, because no reader can notice it: a wrong value within JSON that stays valid, missing arguments of a tool
that requires none, a missing call, and a finish reason on each chunk of an answer that is then cut off.
"""
