"""A real system under random faults, and an oracle that judges the results of its readers: ``python -m tests.chaos``.

``trace`` draws the faults and ``plans`` the streams, both from the seed alone. ``rig`` is the system with a ``proxy``
on every wire (``link``: one connection). ``faults`` and ``harms`` inject the faults and note in ``history`` the
deviations that each excuses. ``chat`` and ``reader`` are clients that retry and resume, ``transcript`` holds the
frames they got; ``socket_reader`` and ``numbered`` are the same for responses over WebSocket. ``oracle`` judges
those, ``statuses`` the transitions of the streams, ``leaks`` the remains. ``campaign`` runs all of it.
"""
