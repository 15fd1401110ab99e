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
        # By the address they knock at; None is for the one who waits until there is one.
        self._probers: dict[Address | None, object] = {}
        self.opened = Signal()

    @property
    def is_sought(self) -> bool:
        """Whether somebody probes at the moment."""
        return bool(self._probers)

    def admit(self, seeker: object, address: Address | None) -> Admission:
        """Return what `seeker` may do about the primary said to be at `address` (None: there is none).

        One prober for each address: who hangs at a frozen server holds nobody back from its successor.
        """
        with self._lock:
            if address is not None and address == self._proved:
                self._withdraw(seeker)
                return Admission.OPEN
            if self._probers.get(address) is seeker:
                return Admission.PROBE
            self._withdraw(seeker)
            if address in self._probers:
                return Admission.WAIT
            self._probers[address] = seeker
            return Admission.PROBE

    def leave(self, seeker: object) -> None:
        """Let the next one probe, if `seeker` was the one."""
        with self._lock:
            if not self._withdraw(seeker):
                return
        self.opened.notify_one()

    def moved(self, address: Address | None) -> None:
        """Let one of those who wait probe the primary that routing names now, unless somebody is at it."""
        with self._lock:
            if address is None or address in self._probers or not self._probers:
                return
        self.opened.notify_one()

    def prove(self, address: Address, seeker: object | None = None) -> bool:
        """Open the gate to `address`: a connection (of `seeker`) has proved that it is the primary.

        :returns: whether it was closed before
        """
        with self._lock:
            self._withdraw(seeker)
            if self._proved == address:
                return False
            self._proved = address
        self.opened.notify_all()
        return True

    def disprove(self, address: Address) -> None:
        """Close the gate to `address`: a connection to it failed, was lost or proved read-only."""
        with self._lock:
            if self._proved == address:
                self._proved = None

    def _withdraw(self, seeker: object) -> bool:
        for address, prober in self._probers.items():
            if prober is seeker:
                del self._probers[address]
                return True
        return False
