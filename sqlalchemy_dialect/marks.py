"""What a pool's record knows of its connection."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, Final

from patroni_db.connections import Driver, Stamp, driver_of

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry, ManagesConnection

__all__ = ["MARK", "Mark", "mark", "mark_of"]

# Under this name in the record's ``info``, which SQLAlchemy clears when the connection is replaced.
MARK: Final = "patroni_db"


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """What a pool's record knows of its connection.

    :param stamp: the server, and the view under which it was right
    :param driver: how to look at the connection
    :param pid: the process that made it
    :param fresh: whether it was never handed out: it proved its role a moment ago
    """

    stamp: Stamp
    driver: Driver
    pid: int
    fresh: bool = True

    def is_lost(self, connection: Any) -> bool:
        """Return whether a driver's `connection` is lost, by what has arrived on it so far. Waits for nothing."""
        return self.driver.consume(connection)


def mark(record: ConnectionPoolEntry | None, connection: object, stamp: Stamp) -> None:
    """Let `record` know of its new connection; outside of a pool there is none."""
    if record is not None:
        record.info[MARK] = Mark(stamp, driver_of(connection), os.getpid())


def mark_of(proxied: ManagesConnection) -> Mark | None:
    """Return what is known of a connection that a pool gave; None when it is not one of ours."""
    try:
        return proxied.info.get(MARK)
    except NotImplementedError:  # what stands in for a proxied connection while the dialect looks at its first server
        return None
