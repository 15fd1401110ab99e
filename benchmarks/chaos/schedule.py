"""Which faults come when: drawn from a seed alone. Pure.

What is drawn depends on neither machine nor time, so that a seed means the same everywhere. How many rounds are
carried out is a matter of the time there is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["KINDS", "Kind", "Planned", "Round", "schedule"]

# How often two faults come at once, and how many seconds the second one may be late.
_TWO_AT_ONCE = 0.25
_LATE = 3.0
# Seconds without a fault between two rounds.
_CALM = (1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    :param name: short, for the command line
    :param label: what is printed
    :param hold: seconds until it is undone: the least and the most
    :param on_replicas: whether it also happens to replicas
    :param weight: how often it is drawn, compared with others
    """

    name: str
    label: str
    hold: tuple[float, float]
    on_replicas: bool = False
    weight: int = 2


KINDS = (
    Kind("switchover", "switchover", (2.0, 5.0), weight=3),
    Kind("postgres-killed", "PostgreSQL killed", (3.0, 6.0), on_replicas=True, weight=3),
    Kind("node-killed", "node killed", (3.0, 8.0), on_replicas=True),
    Kind("node-frozen", "node frozen", (3.0, 14.0), on_replicas=True),
    Kind("patroni-frozen", "Patroni frozen", (3.0, 14.0)),
    Kind("api-dead", "a replica's REST API frozen", (2.0, 6.0), on_replicas=True, weight=1),
    Kind("etcd-stopped", "etcd stopped", (2.0, 9.0)),
    Kind("paused", "Patroni paused", (2.0, 6.0), weight=1),
    Kind("partition", "host cut off", (3.0, 12.0)),
)


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault that is to be made.

    :param kind: the name of its kind
    :param replica: which replica it happens to, counted from 0; None for the primary of that moment
    :param after: seconds from the beginning of its round
    :param hold: seconds until it is undone
    """

    kind: str
    replica: int | None
    after: float
    hold: float


@dataclass(frozen=True, slots=True)
class Round:
    """Faults that come together, after a calm.

    :param calm: seconds without a fault before
    :param faults: in the order of their making
    """

    calm: float
    faults: tuple[Planned, ...]


def schedule(seed: int, kinds: Sequence[Kind] = KINDS, replicas: int = 2) -> Iterator[Round]:
    """Return rounds without end: the same ones for the same arguments, always and everywhere.

    :param seed: whatever number
    :param kinds: those to draw from
    :param replicas: how many replicas there are
    """
    rng = random.Random(seed)  # noqa: S311 - is to be foreseen, if one knows the seed
    while True:
        calm = rng.uniform(*_CALM)
        first = _draw(rng, kinds, replicas, 0.0)
        faults = [first]
        others = [kind for kind in kinds if kind.name != first.kind]
        if others and rng.random() < _TWO_AT_ONCE:
            faults.append(_draw(rng, others, replicas, rng.uniform(0.0, _LATE)))
        yield Round(round(calm, 2), tuple(faults))


def _draw(rng: random.Random, kinds: Sequence[Kind], replicas: int, after: float) -> Planned:
    kind = rng.choices(kinds, [kind.weight for kind in kinds])[0]
    hold = rng.uniform(*kind.hold)
    replica = rng.randrange(replicas)
    # The primary is hit twice as often as all replicas together; an API that is dead alone is a replica's.
    hits_replica = kind.name == "api-dead" or (kind.on_replicas and rng.random() < 1 / 3)
    return Planned(kind.name, replica if hits_replica else None, round(after, 2), round(hold, 2))
