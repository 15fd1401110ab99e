"""``dbshell``: psql on the server that the alias leads to at the moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.backends.postgresql.client import DatabaseClient as _Base
else:
    _Base = object

__all__ = ["PatroniClientMixin"]


class PatroniClientMixin(_Base):
    """Finds the server before psql is started. The shell itself stays there: it does not follow a failover."""

    def runshell(self, parameters: Iterable[str]) -> None:
        """Start psql with `parameters` on a server that proved the alias's role."""
        self.connection.ensure_connection()
        address = self.connection.stamp.address
        self.connection.close()
        there = self.connection.copy()
        there.settings_dict.update(HOST=address.host, PORT=str(address.port))
        super(PatroniClientMixin, type(self)(there)).runshell(parameters)
