"""Explicit-state model of the stream protocol: a breadth-first search over every order of steps and faults.

The rules are those of ``docs/protocol-rules.md``. ``python -m tests.protocol_model F3`` explores one configuration
and prints each kind of violation with the steps that lead to it. The name of a family (``small``, ``without``,
``first_draft``, ``ablation``, ``fixed``, ``resets``, ``leases``) or ``all`` explores several. The family ``small``
takes seconds, the largest configurations hours and gigabytes; PyPy is about six times faster.

A state consists of Redis, a replica that lags, two workers, some readers, and at most one late request. An attempt
has four events: `start` (seq 1), two tokens, the terminal event. Instead of text, an event carries the number of the
attempt that made it, so a mix of two attempts is visible. The model differs from the code in one point: a claim
writes `start` at once, whereas the code waits for the provider's first output (rule E2).

Kinds of violation:

====  =========================================================================================================
I1    a reader, or the log, has a mix of two attempts, a hole or a duplicate (rules S1, R3, R5)
I2    a reader gets an event after the terminal one (rule T1)
I3    a superseded writer changed Redis, or an attempt wrote into another's epoch (rules A4, E4)
I3h   an attempt wrote while a newer one lives (more than the rules promise)
I4    a reader gets 204 without having seen the terminal event (rule R2)
I5    the tail exceeds its cap (rule S3); I5b: its ids do not rise; I5c: it differs from the log
I6    an epoch was given out twice, or an event id was shown with two contents (rules E1, S2)
I7    an ended stream is shorter than a cursor of its own epoch (rule E6)
P1    a reader is reset although the holder lives (rules A5, E7); only looked for where it is asked for
====  =========================================================================================================

A search also finds states from which the goal (every reader and the stream have an ending) is out of reach without
further faults, and readers that ended with another answer than the one that Redis keeps.

The first draft of the protocol (epochs 1, 2, 3 …, compared for equality) breaks I1, I3 and I6 as soon as Redis
restarts empty or a replica that lags takes over. With the rules, no configuration of the family ``fixed`` breaks any.
"""
