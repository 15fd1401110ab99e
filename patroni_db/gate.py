"""Who may connect to the primary: everybody once a connection has proved it, one prober until then.

While a primary is sought, a hundred threads must not knock at a server that is starting up or has no
right to be written to. One of them probes; the others sleep until it has proved the primary, or gives up
and the next one takes over.
"""

from __future__ import annotations

import enum
import threading
from typing import TYPE_CHECKING

from patroni_db.signals import Signal

if TYPE_CHECKING:
    from patroni_db.topology import Address

__all__ = ["Admission", "PrimaryGate"]


class Admission(enum.Enum):
    """What somebody who seeks the primary may do now."""

    OPEN = "the address was proved: connect"
    PROBE = "be the one who probes"
    WAIT = "somebody else probes: wait for the gate's signal"


class PrimaryGate:
    """The gate of one discovery. `opened` is notified when waiting may be over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._proved: Address | None = None
        self._prober: object | None = None
        self.opened = Signal()

    @property
    def is_sought(self) -> bool:
        """Whether somebody probes at the moment."""
        return self._prober is not None

    def admit(self, seeker: object, address: Address | None) -> Admission:
        """Return what `seeker` may do about the primary said to be at `address` (None: there is none)."""
        with self._lock:
            if address is not None and address == self._proved:
                if self._prober is seeker:
                    self._prober = None
                return Admission.OPEN
            if self._prober is None or self._prober is seeker:
                self._prober = seeker
                return Admission.PROBE
            return Admission.WAIT

    def leave(self, seeker: object) -> None:
        """Let the next one probe, if `seeker` was the one."""
        with self._lock:
            if self._prober is not seeker:
                return
            self._prober = None
        self.opened.notify_one()

    def prove(self, address: Address, seeker: object | None = None) -> bool:
        """Open the gate to `address`: a connection (of `seeker`) has proved that it is the primary.

        :returns: whether it was closed before
        """
        with self._lock:
            if self._proved == address and self._prober is None:
                return False
            self._proved = address
            if self._prober is seeker:
                self._prober = None
        self.opened.notify_all()
        return True

    def disprove(self, address: Address) -> None:
        """Close the gate to `address`: a connection to it failed, was lost or proved read-only."""
        with self._lock:
            if self._proved == address:
                self._proved = None
