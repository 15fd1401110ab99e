"""Test databases: one for each database of a cluster, and every alias of it led to the primary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_backend.options import go_to_primary, note_test_database
from django_backend.pairing import Alias, cluster_of
from patroni_db.selection import Target

if TYPE_CHECKING:
    from django.db.backends.postgresql.creation import DatabaseCreation as _Base

    from django_backend.mixin import PatroniMixin
else:
    _Base = object

__all__ = ["PatroniCreationMixin"]


class PatroniCreationMixin(_Base):
    """Knows a database by its cluster and name, where Django looks at HOST and PORT, which mean nothing here."""

    connection: PatroniMixin

    def test_db_signature(self) -> tuple[Any, ...]:
        """Return what tells this alias's test database from those of others."""
        from django_backend.aliases import following  # noqa: PLC0415 - it knows the engine, which knows this class

        here = Alias.of(self.connection.alias, self.connection.settings_dict)
        name = self._get_test_db_name()  # type: ignore[attr-defined]  # django-stubs lacks it
        return ("patroni", cluster_of(here, following()), name)

    def create_test_db(self, *args: Any, **kwargs: Any) -> str:
        """Create the test database on the primary, whatever the alias is for."""
        if self.connection.patroni_config.target is not Target.PRIMARY:
            self._lead_to_primary(self.connection.settings_dict)
        self.connection.close()
        self.connection.close_pool()  # it leads to the database that the tests must not touch
        # Before its migrations: what these read through models must not come from the replicas of another database.
        note_test_database(self.connection.settings_dict, True)
        return super().create_test_db(*args, **kwargs)

    def destroy_test_db(self, old_database_name: str | None = None, *args: Any, **kwargs: Any) -> None:
        """Drop the test database, or a copy of it, and lead the alias back to its own one."""
        super().destroy_test_db(old_database_name, *args, **kwargs)
        if old_database_name is not None:
            note_test_database(self.connection.settings_dict, False)

    def set_as_test_mirror(self, primary_settings_dict: dict[str, Any]) -> None:
        """Lead this alias to the mirrored one's test database on the primary: replicas show writes late."""
        super().set_as_test_mirror(primary_settings_dict)
        self._lead_to_primary(primary_settings_dict)

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        from django_backend.aliases import wrappers  # noqa: PLC0415 - as above

        # A database with sessions cannot be dropped, and a mirror's pool keeps some.
        for wrapper in wrappers().values():
            if wrapper.settings_dict["NAME"] == test_database_name:
                wrapper.close()
                wrapper.close_pool()
        super()._destroy_test_db(test_database_name, verbosity)  # type: ignore[misc]  # django-stubs lacks it

    def _lead_to_primary(self, mirrored: dict[str, Any]) -> None:
        go_to_primary(self.connection.settings_dict, mirrored)
        self.connection.close()
        self.connection.close_pool()
