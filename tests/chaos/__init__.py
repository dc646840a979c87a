"""A real system under random faults, and an oracle that says whether its readers noticed: ``python -m tests.chaos``.

The way through: ``trace`` draws the faults and ``plans`` the streams, both from the seed alone; ``rig`` is the system
with a ``proxy`` on every wire (``link``: one connection); ``faults`` and ``harms`` strike and write into ``history``
what each stroke excuses; ``chat`` and ``reader`` are clients that retry and resume, ``transcript`` is what they saw;
``oracle`` judges it; ``leaks`` looks at what is left; ``campaign`` runs it all.
"""
