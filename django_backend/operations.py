"""The compilers of queries: where Django's ORM executes them, it is decided which server reads.

Django asks ``connection.ops.compiler()`` for the class that makes SQL of a query and executes it, which is how backends
bring compilers of their own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from django.db import connections
from django.db.models.sql.query import Query

from django_backend.read_rules import goes_to_replica
from django_backend.routed_alias import RoutedAlias
from patroni_db.sql_effect import Effect, effect_of_sql

if TYPE_CHECKING:
    from django.db.backends.postgresql.operations import DatabaseOperations as _Operations
    from django.db.models.sql.compiler import SQLCompiler as _Compiler
else:
    _Operations = _Compiler = object

__all__ = ["PatroniOperationsMixin"]

_READ: Final = frozenset({"SQLCompiler", "SQLAggregateCompiler"})


class PatroniOperationsMixin(_Operations):
    """Adds what we need to the compilers of whatever backend this is mixed into."""

    def compiler(self, compiler_name: str) -> type[Any]:
        """Return the class that compiles and executes queries of a kind.

        :param compiler_name: as Django calls it, ``SQLCompiler`` for instance
        """
        mixin = ReadingCompiler if compiler_name in _READ else WritingCompiler
        base: Any = super().compiler(compiler_name)
        return _mixed(mixin, base)


class ReadingCompiler(_Compiler):
    """Executes a query that reads on a replica, if the router has named its alias and the rules say so."""

    def __init__(self, query: Any, connection: Any, using: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(query, connection, using, *args, **kwargs)
        if type(using) is RoutedAlias and not isinstance(query, Query):
            using.take_reader()  # raw SQL: it is executed on connections[alias], and this only names its columns
        # Where the query is executed after all, if its SQL turns out to need the primary.
        self._primary: Any = None

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        """Execute the query, and return its rows in the form that is asked for."""
        using = self.using
        if type(using) is RoutedAlias:
            reader = using.take_reader()
            if reader and not self.query.select_for_update and goes_to_replica(self.connection, reader):
                self._primary, self.connection = self.connection, connections[reader]
        return super().execute_sql(*args, **kwargs)

    def as_sql(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Return the SQL and its parameters; :meth:`execute_sql` asks for them before it makes a cursor.

        Functions of PostgreSQL that a standby refuses (``nextval()``), or that mean another thing there (an advisory
        lock keeps nobody out), are the primary's.
        """
        sql, params = super().as_sql(*args, **kwargs)
        primary, self._primary = self._primary, None
        if primary is not None and effect_of_sql(sql) > Effect.READS:
            self.connection = primary
        return sql, params


class WritingCompiler(_Compiler):
    """Executes a query that writes on the primary, and on the primary too what it has to read first."""

    def __init__(self, query: Any, connection: Any, using: Any, *args: Any, **kwargs: Any) -> None:
        if type(using) is RoutedAlias:
            using.take_reader()
        super().__init__(query, connection, using, *args, **kwargs)


@functools.cache
def _mixed(mixin: Any, base: Any) -> type[Any]:
    return type(base.__name__, (mixin, base), {"__module__": mixin.__module__})
