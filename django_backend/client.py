"""``dbshell``: psql on the server that the alias leads to at the moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patroni_db.libpq import NO_HOSTADDR, server_params

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.backends.postgresql.client import DatabaseClient as _Base

    from django_backend.mixin import PatroniMixin
else:
    _Base = object

__all__ = ["PatroniClientMixin"]


class PatroniClientMixin(_Base):
    """Finds the server before psql is started. The shell itself stays there: it does not follow a failover."""

    connection: PatroniMixin

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], dict[str, str] | None]:
        """Return psql's arguments and environment; PGHOSTADDR would lead it past the server that was found."""
        args, env = super().settings_to_cmd_args_env(settings_dict, parameters)
        return args, {**(env or {}), "PGHOSTADDR": NO_HOSTADDR}

    def runshell(self, parameters: Iterable[str]) -> None:
        """Start psql with `parameters` on a server that proved the alias's role."""
        self.connection.ensure_connection()
        stamp = self.connection.stamp
        assert stamp is not None  # noqa: S101 - a new connection has one
        self.connection.close()
        there = self.connection.copy()
        servers = server_params([stamp.address], there.patroni_config.target)
        there.settings_dict.update(HOST=servers["host"], PORT=servers["port"])
        super(PatroniClientMixin, type(self)(there)).runshell(parameters)
