"""What a connection is known to show of what has been written, and the promise to read only from one that does."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.db import Error

from django_backend.effects import note_failure
from django_backend.errors import StaleReplicaError
from patroni_db.causal import CausalToken, Standing
from patroni_db.causal_reads import capture, has_caught_up
from patroni_db.faults import Fault

if TYPE_CHECKING:
    from django.db.backends.postgresql.base import DatabaseWrapper as _Base

    from patroni_db.config import PatroniConfig
    from patroni_db.connections import Stamp
    from patroni_db.discovery import Discovery
else:
    _Base = object

__all__ = ["CausalMixin"]

logger = logging.getLogger("patroni_db.django")


class CausalMixin(_Base):
    """The part of a wrapper that knows causal tokens."""

    if TYPE_CHECKING:
        _config: PatroniConfig | None
        _discovery: Discovery | None
        _stamp: Stamp | None

        def _report(self, exc: BaseException) -> Fault: ...
        def _discard(self) -> None: ...

    # What the open connection shows at least; a replica never goes back. None for a new connection.
    _shown: CausalToken | None = None
    # What the next statement was promised to see.
    _promised: CausalToken | None = None

    def capture_token(self) -> CausalToken:
        """Return a token for all that has been committed on this primary. One statement, not in a transaction.

        :raises Error: Django's, for the driver's
        """
        self.close_if_health_check_failed()
        self.ensure_connection()
        try:
            with self.wrap_database_errors:
                return capture(self.connection)
        except Error as exc:
            if self._report(exc) is Fault.UNAVAILABLE:
                self._discard()
            raise

    def shows(self, token: CausalToken) -> Standing:
        """Return whether the next statement would see what `token` stands for, and promise it.

        Asks the server once for each connection and token, and waits for it as long as ``patroni_causal_wait`` says.
        An error is no reason to fail: then it is not known to.
        """
        self._promised = None
        try:
            standing = self._standing(token)
        except Error as exc:
            logger.info("%r could not be asked what it shows, so the primary is read: %s", self.alias, exc)
            return Standing.BEHIND
        if standing is Standing.REACHED:
            self._promised = token
        return standing

    def _standing(self, token: CausalToken) -> Standing:
        if self.connection is not None and _covers(self._shown, token):
            return Standing.REACHED
        if self.in_atomic_block or (self.connection is not None and not self.autocommit):
            return Standing.BEHIND  # its snapshot may have been taken before
        self.close_if_health_check_failed()
        self.ensure_connection()
        return self._asked(token)

    def _asked(self, token: CausalToken) -> Standing:
        discovery, stamp, config = self._discovery, self._stamp, self._config
        assert discovery is not None and stamp is not None and config is not None  # noqa: S101, PT018 - connected
        try:
            with self.wrap_database_errors:
                standing = has_caught_up(discovery, self.connection, stamp, token, config.causal_wait)
        except Error as exc:
            if self._report(exc) is Fault.UNAVAILABLE:
                self._discard()
            raise
        if standing is Standing.REACHED:
            self._shown = token
        return standing

    def _keep_promise(self) -> None:
        """Look again where the connection is not the one that a promise was made for.

        :raises StaleReplicaError: it cannot be kept
        """
        promised, self._promised = self._promised, None
        if promised is None or _covers(self._shown, promised):
            self._promised = promised  # until the statement has been executed, perhaps on another server
            return
        if self._asked(promised) is Standing.BEHIND:
            error = StaleReplicaError("the replica was lost, and the next one does not show yet what had been written")
            note_failure(error, connected=True, lost=True)  # so that a whole request may run again
            raise error
        self._promised = promised


def _covers(shown: CausalToken | None, token: CausalToken) -> bool:
    return shown is not None and token.later(shown) == shown
