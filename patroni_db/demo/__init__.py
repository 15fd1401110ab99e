"""``patroni-db demo``: applications at work on a real cluster, through faults, and every write accounted for.

Pure: :mod:`history` (what happened), :mod:`timeline` (who was primary when, how long nothing worked),
:mod:`checker` (what became of each write), :mod:`report` (the figures). With I/O: :mod:`journal` (what the
clients write down), :mod:`oracle` (what the servers themselves say), :mod:`clients` (their processes),
:mod:`run` (the whole course), :mod:`screen` and :mod:`summary` (what is shown).

The clients are programs of the example project, so the demo needs a checkout. Nothing here knows a framework.
"""
