"""What makes a backend derived from Django's PostgreSQL one follow a Patroni cluster.

A backend of your own has the same engine with two lines in its ``base`` module::

    class DatabaseWrapper(PatroniMixin, postgis_base.DatabaseWrapper):
        pass
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import Error
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.utils import DatabaseErrorWrapper
from django.utils.asyncio import async_unsafe
from django.utils.functional import cached_property

from django_backend.client import PatroniClientMixin
from django_backend.clusters import hold
from django_backend.commands import command_output, connect_for_command
from django_backend.creation import PatroniCreationMixin
from django_backend.cursors import cursor_class
from django_backend.effects import fresh_mark, note_change, note_failure, take_opening
from django_backend.errors import CommitOutcomeUnknown, RolledBack
from django_backend.guard import is_for_reading, refuse_write, statement_kind
from django_backend.operations import PatroniOperationsMixin
from django_backend.options import check_driver_options, current_config, driver_params
from django_backend.reading import CausalMixin
from django_backend.session_state import SessionStateMixin
from django_backend.work import note_write
from patroni_db.acquisition import acquire
from patroni_db.connections import SURPLUS, driver_of, in_hot_standby, is_lost, still_right, why_unusable
from patroni_db.discovery import Discovery, discovery_for
from patroni_db.errors import DiscoveryError, KeyReusedError, NoServerError
from patroni_db.faults import READING_FAULTS, Fault, classify, sqlstate_of
from patroni_db.isolation import LOWER, refuses_serializable, sets_serializable
from patroni_db.libpq import attempt_params
from patroni_db.log_levels import level_of_replacement
from patroni_db.markers import RENEW_AFTER
from patroni_db.outcome import ends_transaction, is_in_doubt
from patroni_db.outside import outside_params
from patroni_db.statements import StatementKind
from patroni_db.time_limit import time_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from django.db.backends.postgresql.base import DatabaseWrapper as _Base
    from django.db.backends.utils import CursorDebugWrapper, CursorWrapper
    from psycopg import IsolationLevel

    from django_backend.effects import Mark, Opening
    from django_backend.pool import PatroniPool
    from patroni_db.acquisition import Attempt
    from patroni_db.config import PatroniConfig
    from patroni_db.connections import Driver, Stamp
    from patroni_db.snapshot import Snapshot
else:
    _Base = object

__all__ = ["PatroniMixin"]

logger = logging.getLogger("patroni_db.django")

# Of psycopg.IsolationLevel, which comes with the first connection.
_REPEATABLE_READ: Final = 3
_SERIALIZABLE: Final = 4
# libpq's PQTRANS_IDLE.
_IDLE: Final = 0
# PQTRANS_INTRANS.
_IN_TRANSACTION: Final = 2
# PQTRANS_ACTIVE, PQTRANS_INTRANS, PQTRANS_INERROR.
_OPEN: Final = (1, 2, 3)
# A server that goes while the session is being set up: nothing of the user's has run yet.
_CONNECTS: Final = 3
# How often a read that lost its server, or that its server failed to serve, is sent to another one. A statement that
# crashes the server it runs on must not go round until none is left.
_READS_SENT_AGAIN: Final = 2
# Seconds for finding out what became of a COMMIT, even when the deadline of the work has come.
_LEAST_FOR_AN_ANSWER: Final = 2.0
# Seconds for which a look at the session holds: Django looks when it makes a cursor, and executes on it at once.
_LOOK_HOLDS: Final = 0.0002


class PatroniMixin(SessionStateMixin, CausalMixin, _Base):
    """A PostgreSQL wrapper whose connections lead where ``patroni_target`` says, through every failover."""

    # By alias, for the process, as in Django's backend; not shared with it.
    _connection_pools: ClassVar[dict[str, PatroniPool]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Add what we need to the creation, client and operations classes of whatever backend we are mixed into."""
        super().__init_subclass__(**kwargs)
        cls.creation_class = _mixed(PatroniCreationMixin, cls.creation_class)
        cls.client_class = _mixed(PatroniClientMixin, cls.client_class)
        cls.ops_class = _mixed(PatroniOperationsMixin, cls.ops_class)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._config: PatroniConfig | None = None
        self._discovery: Discovery | None = None
        self._stamp: Stamp | None = None
        self._driver: Driver | None = None
        self._mark: Mark | None = None
        # The keys of the transaction under way, and when they were inserted.
        self._marked: tuple[tuple[str, ...], float] = ((), math.inf)
        self._collisions = 0
        self._is_for_reading = False
        self._connects = False
        self._has_written = False
        self._usual_isolation: tuple[IsolationLevel | None] | None = None
        self._looked_at = -math.inf
        super().__init__(*args, **kwargs)
        self.alias = str(self.alias)  # it may be made for a query that the router has routed
        _wrappers.add(self)

    # -- Settings --------------------------------------------------------------------------------------------

    @property
    def patroni_config(self) -> PatroniConfig:
        """The ``patroni_*`` settings in force.

        :raises ImproperlyConfigured: naming a wrong one
        """
        return current_config(self.alias, self.settings_dict)

    @property
    def discovery(self) -> Discovery:
        """The view of the cluster that all users of it in this process share.

        :raises ImproperlyConfigured: naming a wrong setting
        """
        return discovery_for(self.patroni_config)

    @property
    def stamp(self) -> Stamp | None:
        """The server that the open connection leads to; None without a connection."""
        return None if self.connection is None else self._stamp

    def get_connection_params(self) -> dict[str, Any]:
        """Return the driver's parameters.

        For our own connections they name no server: that is found when one is made. Tools that connect by themselves
        are given the servers of the last view, and the role that the driver has to prove.

        :raises ImproperlyConfigured: naming a wrong setting
        """
        config = self.patroni_config  # a wrong setting is told before anything else
        check_driver_options(self.alias, self.settings_dict)
        params = driver_params(super().get_connection_params())
        if not self._connects:
            return {**params, **outside_params(self._discovery or discovery_for(config), config)}
        self._is_for_reading = is_for_reading(self.alias, self.settings_dict)
        self._config = config
        # The alias of a moment's work on no particular database.
        self._discovery = discovery_for(config) if self.alias == NO_DB_ALIAS else hold(self.alias, config)
        return params

    # -- Getting a connection --------------------------------------------------------------------------------

    @async_unsafe
    def connect(self) -> None:
        """Connect, and again when the server goes while the session is being set up."""
        for left in reversed(range(_CONNECTS)):
            try:
                with self._connecting():
                    super().connect()
            except (Error, self.Database.Error) as exc:
                if self.connection is None or self._report(exc) is not Fault.UNAVAILABLE or not left:
                    raise
                logger.info("connection of %r lost while it was set up: %s", self.alias, exc)
                self._discard()
            else:
                self._note_new_session()
                self._looked_at = -math.inf if self._discovery is None else self._discovery.clock()
                return

    @contextlib.contextmanager
    def _connecting(self) -> Iterator[None]:
        """Have :meth:`get_connection_params` name no server meanwhile."""
        before, self._connects = self._connects, True
        try:
            yield
        finally:
            self._connects = before

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a driver's connection to a server that proved the target's role.

        Waits for one as long as ``patroni_failover_timeout`` says.
        """
        self._shown, self._has_written = None, False
        self._begin_work()
        discovery, config = self._discovery, self._config
        assert discovery is not None and config is not None  # noqa: S101, PT018 - by get_connection_params
        connect = functools.partial(self._new_connection, conn_params)
        output = command_output()
        try:
            if output is None:
                return connect()
            return connect_for_command(connect, output, discovery, config, self.alias)
        except (NoServerError, DiscoveryError) as exc:
            raise self.Database.OperationalError(str(exc)) from exc

    def _new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a driver's connection.

        :raises NoServerError: none was found in time
        :raises DiscoveryError: nothing is known of the cluster
        """
        if self.pool:
            connection = super().get_new_connection(conn_params)
            self._stamp, self._driver = connection.stamp, driver_of(connection)
            self._lower_isolation(connection)
            return connection
        new_connection: Callable[[dict[str, Any]], Any] = super().get_new_connection

        def connect(attempt: Attempt) -> Any:
            return new_connection(attempt_params(conn_params, attempt))

        assert self._discovery is not None and self._config is not None  # noqa: S101, PT018 - by get_connection_params
        connection, self._stamp = acquire(self._discovery, self._config, connect)
        self._driver = driver_of(connection)
        self._lower_isolation(connection)
        return connection

    def _lower_isolation(self, connection: Any) -> None:
        """Have transactions that only read on a standby be what it can do, where they were to be SERIALIZABLE."""
        if connection.isolation_level == _SERIALIZABLE and self._refuses_serializable(connection):
            connection.read_only = True
            connection.isolation_level = _REPEATABLE_READ

    def _lower_default_again(self, sql: Any, cursor: Any) -> None:
        """Undo what a statement just did that made SERIALIZABLE the default of a session which cannot be that."""
        if sets_serializable(sql) and self._refuses_serializable(self.connection):
            with self.wrap_database_errors:
                cursor.cursor.execute(LOWER)

    def _refuses_serializable(self, connection: Any) -> bool:
        driver, stamp, config = self._driver, self._stamp, self._config
        if driver is None or stamp is None or config is None:
            return False
        return refuses_serializable(driver, connection, stamp, config.target)

    @property
    def pool(self) -> PatroniPool | None:
        """The pool of this alias, made when it is first asked for; None without ``OPTIONS["pool"]``.

        :raises ImproperlyConfigured: its settings contradict others, or psycopg_pool is not installed
        """
        options = self.settings_dict["OPTIONS"].get("pool")
        if self.alias == NO_DB_ALIAS or not options:
            return None
        pool = self._connection_pools.get(self.alias)
        if pool is not None and pool.has_given_up:
            pool = _forget_pool(self._connection_pools, self.alias, pool)
        if pool is None:
            # Several threads may make one; it is not open yet, and the first one stays.
            pool = self._connection_pools.setdefault(self.alias, self._make_pool({} if options is True else options))
        return pool

    def _make_pool(self, options: dict[str, Any]) -> PatroniPool:
        if self.settings_dict.get("CONN_MAX_AGE", 0) != 0:
            raise ImproperlyConfigured("Pooling doesn't support persistent connections.")
        try:
            from django_backend.pool import PatroniPool, Source  # noqa: PLC0415 - psycopg_pool is optional
        except ImportError as exc:
            raise ImproperlyConfigured("Error loading psycopg_pool module.\nDid you install psycopg[pool]?") from exc
        with self._connecting():
            params = {**self.get_connection_params(), "autocommit": True}
        assert self._discovery is not None and self._config is not None  # noqa: S101, PT018 - by get_connection_params
        source = Source(self._discovery, self._config)
        configure = self._configure_connection  # type: ignore[attr-defined]  # django-stubs lacks it
        try:
            checked = bool(self.settings_dict.get("CONN_HEALTH_CHECKS"))
            return PatroniPool(source, params, checked=checked, configure=configure, **options)
        except TypeError as exc:
            raise ImproperlyConfigured(f"DATABASES[{self.alias!r}]['OPTIONS']['pool']: {exc}") from exc

    def close_pool(self) -> None:
        """Close the alias's pool, if there is one; the next connection makes a new one, of the settings then."""
        pool = self._connection_pools.pop(self.alias, None)
        if pool is not None:
            pool.close()

    # -- Keeping one -----------------------------------------------------------------------------------------

    def close_if_health_check_failed(self) -> None:
        """Close a connection that must not be used any more: called before every statement and transaction.

        None of our checks is a round trip. Django's own, if asked for, comes after them.
        """
        if self.connection is not None:
            self._close_if_unusable(between=False)
        super().close_if_health_check_failed()

    def close_if_unusable_or_obsolete(self) -> None:
        """Close a connection that must not live into the next request: called when one begins and when one ends.

        Here alone a better server is preferred, and a replica that came gets its share of the connections: within a
        request they stay where they are.
        """
        if self.connection is not None and (self._is_for_reading or self._has_routing_moved()):
            self._close_if_unusable(between=True)
        if self._is_for_reading and self.connection is not None:
            self._give_up_if_crowded()
        self._begin_work()
        super().close_if_unusable_or_obsolete()

    def _give_up_if_crowded(self) -> None:
        """Close a persistent connection whose server has more than its share of them."""
        is_persistent = not self.pool and self.settings_dict.get("CONN_MAX_AGE") != 0
        if is_persistent and self._may_follow_preference(between=True):
            self._give_up_if_surplus()

    def _give_up_if_surplus(self) -> None:
        stamp, config, discovery = self._stamp, self._config, self._discovery
        if stamp and config and discovery and discovery.gives_up(stamp, config):
            level = level_of_replacement(discovery, stamp, SURPLUS.why)
            logger.log(level, "connections of %r to %s are replaced: %s", self.alias, stamp, SURPLUS.why)
            self._discard()

    def _has_routing_moved(self) -> bool:
        snapshot = self._discovery.snapshot if self._discovery else None
        return snapshot is not None and self._stamp is not None and self._stamp.generation != snapshot.generation

    def _close_if_unusable(self, *, between: bool) -> None:
        """Close the connection if something speaks against it, and nothing can be lost with it.

        A fault is reason enough at any time; a preference is for between two units of work.
        """
        if self.in_atomic_block:
            return
        stamp, driver, config, discovery = self._stamp, self._driver, self._config, self._discovery
        if stamp is None or driver is None or config is None or discovery is None:
            return
        if self.autocommit != self.settings_dict["AUTOCOMMIT"]:
            return  # in the middle of something; a new connection would not be
        connection, snapshot = self.connection, discovery.snapshot
        objection = why_unusable(driver, connection, stamp, config, snapshot)
        if objection is None or not (objection.is_fault or self._may_follow_preference(between=between)):
            self._looked_at = discovery.clock()
            if objection is None and snapshot is not None and stamp.generation != snapshot.generation:
                self._keep(stamp, config, snapshot, between=between)
            return
        # Without autocommit a closed connection may have been in a transaction: then it is for the next
        # statement to tell. So it is when the user wrote BEGIN.
        if not self.autocommit if connection.closed else connection.pgconn.transaction_status != _IDLE:
            return
        level = level_of_replacement(discovery, stamp, objection.why)
        logger.log(level, "connections of %r to %s are replaced: %s", self.alias, stamp, objection.why)
        self._discard()

    def _keep(self, stamp: Stamp, config: PatroniConfig, snapshot: Snapshot, *, between: bool) -> None:
        """Go on with a connection that was looked at under a later view; what is second choice may be given up."""
        if still_right(stamp, config, snapshot):
            self._stamp = stamp.renewed(snapshot.generation)
        elif self._may_follow_preference(between=between):
            self._give_up_if_surplus()

    def _discard(self) -> None:
        """Close the driver's connection itself, so that no pool can hand it out again, and then the wrapper's."""
        if self.settings_dict["OPTIONS"].get("pool"):
            self.connection.ended_on_purpose = True
        with contextlib.suppress(self.Database.Error):
            self.connection.close()
        with contextlib.suppress(Error):
            self.close()

    # -- Losing one ------------------------------------------------------------------------------------------

    def set_autocommit(
        self,
        autocommit: bool,  # noqa: FBT001 - as Django has it
        force_begin_transaction_with_broken_autocommit: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Turn autocommit on or off, and begin a transaction as it was ordered.

        Where there is no connection, and a new one will have it so, do not make one. ``atomic`` calls this when it
        ends: with a connection that was lost it would wait for the next primary before the error could be seen, or
        forget what is to follow a COMMIT.
        """
        if autocommit and self.connection is not None and self.run_commit_hooks_on_set_autocommit_on:
            self._lose_after_commit()
        if self.connection is None and autocommit == self.settings_dict["AUTOCOMMIT"]:
            self.validate_no_atomic_block()
            self.autocommit = autocommit
            self._usual_isolation = None
            if self.run_commit_hooks_on_set_autocommit_on:
                self.run_commit_hooks_on_set_autocommit_on = False
                self.run_and_clear_commit_hooks()
            self.run_on_commit = []
            return
        if autocommit:
            self._isolate_as_usual()
        opening = None if autocommit else take_opening(self.alias)
        super().set_autocommit(autocommit, force_begin_transaction_with_broken_autocommit)
        if not autocommit:
            self._mark, self._collisions, self._marked = None, 0, ((), math.inf)
        if opening is not None:
            self._open(opening)

    # -- Beginning a transaction -----------------------------------------------------------------------------

    @property
    def collisions(self) -> int:
        """How often the key of the transaction under way has been met before; 0 when it is new, or there is none."""
        return self._collisions

    @property
    def has_uncommitted_writes(self) -> bool:
        """Whether a transaction is under way in which something but reads was executed."""
        # Where one was closed in the middle, nothing is under way any more.
        return self._has_written and self.connection is not None and self.connection.pgconn.transaction_status in _OPEN

    def mark_transaction(self, mark: Mark) -> int:
        """Insert a commit marker in the transaction under way; return :attr:`collisions`.

        :raises CommitOutcomeUnknown: another transaction has the same key, and was not decided in time
        :raises KeyReusedError: the key was taken by other work
        """
        # Late: psycopg comes with the first connection.
        from django_backend.marking import LOCK_NOT_AVAILABLE, explain, insert  # noqa: PLC0415

        patience = self._config.failover_timeout if self._config else 0.0
        try:
            with self.wrap_database_errors:
                self._collisions = insert(self.connection, mark, time_left(patience))
            keys, since = self._marked
            self._marked = (*keys, mark.key), min(since, time.monotonic())
        except Error as exc:
            self._report(exc)
            explain(exc, self.alias)
            if sqlstate_of(exc) == LOCK_NOT_AVAILABLE:
                problem = f"another transaction with the key {mark.key!r} is not decided yet"
                raise CommitOutcomeUnknown(problem) from exc.__cause__
            raise
        return self._collisions

    def _open(self, opening: Opening) -> None:
        try:
            if opening.isolation_level is not None:
                self._usual_isolation = (self.connection.isolation_level,)
                with self.wrap_database_errors:
                    self.connection.isolation_level = opening.isolation_level
                    self._lower_isolation(self.connection)
            if opening.mark is not None:
                self._begin_marked(opening.mark)
        except (Error, KeyReusedError):
            # Who begins a transaction does not expect to have to end it when that failed.
            try:
                self.rollback()
                self.set_autocommit(True)
            except Error:
                self._discard()
                self.autocommit = True
            raise
        except BaseException:
            self._discard()
            self.autocommit = True
            raise

    def _begin_marked(self, mark: Mark) -> None:
        collisions = self.mark_transaction(mark)
        if mark.shared and not collisions:
            # Only a key that is this transaction's alone tells what became of *its* COMMIT.
            mark = fresh_mark()
            self.mark_transaction(mark)
        self._mark = mark

    def _isolate_as_usual(self) -> None:
        if self._usual_isolation is not None and self.connection is not None and not self.connection.closed:
            with self.wrap_database_errors:
                (self.connection.isolation_level,) = self._usual_isolation
        self._usual_isolation = None

    def make_cursor(self, cursor: Any) -> CursorWrapper:
        """Return Django's wrapper of a driver's cursor, which executes through faults."""
        base: Any = type(super().make_cursor(cursor))
        wrapped: CursorWrapper = cursor_class(base)(cursor, self)
        return wrapped

    def make_debug_cursor(self, cursor: Any) -> CursorDebugWrapper:
        """Do the same as :meth:`make_cursor` where queries are logged."""
        base: Any = type(super().make_debug_cursor(cursor))
        wrapped: CursorDebugWrapper = cursor_class(base)(cursor, self)
        return wrapped

    def execute_through_faults(
        self, execute: Callable[[Any, Any], Any], sql: Any, params: Any, cursor: Any, *, many: bool
    ) -> Any:
        """Execute a statement; where it provably did not run, or only read, once more on another server.

        Whatever cannot be repeated without a doubt is reported, unchanged.
        """
        kind = self._admitted(sql)
        tries = None
        self._renew_outlived(cursor)
        while True:
            if self._promised is not None:
                self._keep_promise()
            alone = self._is_alone()
            ends = not alone and isinstance(sql, str) and ends_transaction(sql)
            lost_before = (alone or ends) and self._is_lost()
            try:
                result = execute(sql, params)
            except Error as exc:
                fault = self._report(exc)
                if self.connection is None or not (alone or ends):
                    raise
                in_doubt = is_in_doubt(exc, lost=bool(self.connection.closed), lost_before=lost_before)
                unknown = in_doubt and self._stands_by() is not True
                tries = tries or _Tries()
                again = alone and self._executes_again(
                    fault, tries, in_doubt=in_doubt, lost_before=lost_before, many=many
                )
                # A read may run again where it failed, if more would be lost with the session.
                stays = fault in READING_FAULTS and self._holds_something(but=cursor.cursor)
                if alone and (again or fault is Fault.UNAVAILABLE) and not (stays and not self.connection.closed):
                    self._discard()
                if not again:
                    if unknown:
                        raise self._unknown() from exc.__cause__
                    raise
                logger.info("statement of %r runs again: %s", self.alias, exc)
            else:
                if ends or (alone and kind is not StatementKind.READ and self._stands_by() is not True):
                    note_change(self.alias)
                self._note_executed(kind, sql, settled=alone or ends)
                self._lower_default_again(sql, cursor)
                return result
            self._renew(cursor)

    def _is_lost(self) -> bool:
        """Return whether the connection was lost before the statement that is about to be sent."""
        clock = self._discovery.clock if self._discovery is not None else time.monotonic
        return clock() - self._looked_at > _LOOK_HOLDS and is_lost(self.connection)

    def _admitted(self, sql: Any) -> StatementKind:
        """Return what a statement does.

        :raises WriteRefusedError: it must not
        """
        kind = statement_kind(sql, self.connection)
        if kind is not StatementKind.READ:
            reading = self._is_for_reading
            refuse_write(self.alias, kind, sql, for_reading=reading, standby=self._stands_by() if reading else False)
        return kind

    def _note_executed(self, kind: StatementKind, sql: Any, *, settled: bool) -> None:
        """Take note of a statement that was executed; `settled`: no COMMIT is to follow."""
        self._promised = None
        self._note_state(kind, sql)
        if kind is not StatementKind.READ:
            self._has_written = not self._is_for_reading
        if settled and self._has_written:
            self._has_written = False
            note_write(self.alias)

    def _executes_again(self, fault: Fault, tries: _Tries, *, in_doubt: bool, lost_before: bool, many: bool) -> bool:
        """Return whether a statement outside a transaction, which failed, is to be executed once more."""
        if fault not in _OF_THE_SERVER or self._discovery is None or self._config is None:
            return False
        if lost_before:
            again = True
        elif many:
            again = False  # several statements: the first ones may have run
        else:
            # A server that is not there may say so itself: it starts up, or a pooler did not reach it.
            again = self._may_run_again(fault) or (fault is Fault.UNAVAILABLE and not in_doubt)
        tries.reads += in_doubt or fault in READING_FAULTS
        now = self._discovery.clock()
        if tries.deadline is None:
            tries.deadline = now + time_left(self._config.failover_timeout)
        return again and tries.reads <= _READS_SENT_AGAIN and now < tries.deadline

    def _unknown(self) -> CommitOutcomeUnknown:
        """Return the error for what may have been committed."""
        note_change(self.alias)
        note_write(self.alias)
        return CommitOutcomeUnknown("the connection was lost before the server had answered: it may have taken effect")

    def _is_alone(self) -> bool:
        """Return whether the next statement is outside any transaction, also one the user wrote by hand."""
        return (
            not self.in_atomic_block
            and self.autocommit
            and self.connection is not None
            and self.connection.pgconn.transaction_status == _IDLE
        )

    def _may_run_again(self, fault: Fault) -> bool:
        """Return whether the failed statement, outside a transaction, is known not to have changed anything."""
        standby = self._stands_by()
        if fault is Fault.NOT_WRITABLE:
            # On a primary it is the application's own READ ONLY that refused: it would again, for ever.
            if standby is None:
                standby = self._asked_whether_it_stands_by()
            return standby and self._config is not None and self._config.target.writes
        return standby is True

    def _stands_by(self) -> bool | None:
        """Return whether the session is, or was when it broke, on a standby; None when that must be asked."""
        reported = self._in_hot_standby()
        return None if reported is None else reported == "on"

    def _in_hot_standby(self) -> str | None:
        if self._driver is None or self._stamp is None:
            return None
        return in_hot_standby(self._driver, self.connection, self._stamp)

    def _asked_whether_it_stands_by(self) -> bool:
        """Ask by a statement: before PostgreSQL 14, and behind poolers."""
        try:
            with self.connection.cursor() as cursor:
                (standby,) = cursor.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
        except self.Database.Error:
            return False
        return bool(standby)

    def _renew(self, cursor: Any) -> None:
        """Give Django's cursor a driver's cursor of a new connection."""
        name = getattr(cursor.cursor, "name", None)
        self.ensure_connection()
        with self.wrap_database_errors:
            cursor.cursor = self.create_cursor(name)

    def _report(self, exc: BaseException) -> Fault:
        """Classify an error of the open connection and, if it tells of the server, let discovery know."""
        if self.connection is None or self._stamp is None or self._discovery is None:
            return Fault.OTHER
        fault = classify(exc, closed=self.connection.closed)
        # Where nobody tells whether the server stands by, it is better looked for once too often.
        refused = fault is Fault.NOT_WRITABLE and self._config is not None and self._config.target.writes
        if fault is Fault.UNAVAILABLE or (refused and self._stands_by() is not False):
            self._discovery.invalidate(self._stamp.member, self._stamp.address)
        return fault

    def _distrust(self, exc: BaseException) -> None:
        """Let a replica rest that failed to read."""
        if self.connection is None or self._stamp is None or self._discovery is None or self._driver is None:
            return
        fault = classify(exc, closed=self.connection.closed)
        if fault in READING_FAULTS:
            self._discovery.distrust(self._stamp, fault, self._in_hot_standby())

    @cached_property
    def wrap_database_errors(self) -> DatabaseErrorWrapper:
        """Raise the driver's errors as Django's, and tell whoever wants to run the work again."""
        return _ErrorWrapper(self)

    # -- Committing ------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Commit, and let nobody guess what became of it.

        :raises OperationalError: the connection was lost before; nothing was committed
        :raises RolledBack: it was lost meanwhile, and the commit marker proves that nothing was committed
        :raises CommitOutcomeUnknown: it was lost meanwhile; it may have been committed
        """
        mark, self._mark = self._mark, None
        if self._has_written:
            # Before it is known what becomes of it: who may have written must not miss it afterwards.
            self._has_written = False
            note_write(self.alias)
        connection = self.connection
        if connection is None or connection.pgconn.transaction_status == _IDLE:
            super()._commit()  # type: ignore[misc]  # django-stubs lacks it
            return
        if is_lost(connection):
            with contextlib.suppress(self.Database.Error):
                connection.close()
            try:
                with self.wrap_database_errors:
                    problem = "the connection was lost before COMMIT was sent: nothing was committed"
                    raise self.Database.OperationalError(problem)
            except Error as exc:
                self._report(exc)
                raise
        self._renew_markers()
        try:
            super()._commit()  # type: ignore[misc]  # django-stubs lacks it
        except Error as exc:
            self._report(exc)
            in_doubt = is_in_doubt(exc, lost=bool(connection.closed), lost_before=False)
            if not in_doubt or self._stands_by() is True:
                raise  # nothing was committed; on a standby there was nothing to commit
            self._resolve(exc, mark)
        if mark is not None or self._stands_by() is not True:
            note_change(self.alias)

    def _renew_markers(self) -> None:
        """Let markers that a long transaction inserted at its beginning count from its end when they are pruned."""
        keys, since = self._marked
        self._marked = (), math.inf
        if time.monotonic() - since < RENEW_AFTER or self.connection.pgconn.transaction_status != _IN_TRANSACTION:
            return
        from django_backend.marking import renew  # noqa: PLC0415 - with the first connection

        try:
            with self.wrap_database_errors:
                renew(self.connection, keys)
        except Error as exc:
            self._report(exc)
            raise

    def _resolve(self, exc: Error, mark: Mark | None) -> None:
        """Find out what became of a COMMIT that was not answered; return when it took effect."""
        # Django forgets with a connection what is to follow its transaction's commit.
        hooks = self.run_on_commit
        self._discard()
        if mark is None:
            raise self._unknown() from exc.__cause__
        from django_backend.marking import has_committed  # noqa: PLC0415 - with the first connection

        seconds = self._config.failover_timeout if self._config else 0.0
        try:
            committed = has_committed(self, mark, max(time_left(seconds), _LEAST_FOR_AN_ANSWER))
        except (Error, TimeoutError) as why:
            unknown = self._unknown()
            unknown.add_note(f"its commit marker could not be read: {why}")
            raise unknown from exc.__cause__
        logger.info("COMMIT of %r: its answer was lost, and it %s", self.alias, _OUTCOMES[committed])
        if not committed:
            problem = "the connection was lost during COMMIT, and the transaction was rolled back"
            raise RolledBack(problem) from exc.__cause__
        self.run_on_commit = hooks

    def _lose_after_commit(self) -> None:
        """Let go of a connection that was lost after the COMMIT on it was answered, before hooks follow that."""
        if self.connection.closed:
            hooks = self.run_on_commit
            self._discard()
            self.run_on_commit = hooks

    def _rollback(self) -> None:
        self._has_written = False
        try:
            super()._rollback()  # type: ignore[misc]  # django-stubs lacks it
        except Error as exc:
            self._report(exc)
            raise

    # -- Forking ---------------------------------------------------------------------------------------------

    def _forget_inherited(self) -> None:
        """Let go of the parent's connection without a word to its server."""
        if self.connection is None:
            return
        _inherited.append(self.connection)
        self.connection = None
        self._stamp = None
        if self.in_atomic_block:
            # The transaction is the parent's: what close() does in the middle of one.
            self.closed_in_transaction = True
            self.needs_rollback = True


_OF_THE_SERVER: Final = frozenset({Fault.UNAVAILABLE, Fault.NOT_WRITABLE}) | READING_FAULTS
_OUTCOMES: Final = {True: "took effect", False: "was rolled back"}


class _Tries:
    """Of one statement: how often it was lost, and until when it may be executed again."""

    def __init__(self) -> None:
        self.reads = 0
        self.deadline: float | None = None


class _ErrorWrapper(DatabaseErrorWrapper):
    """Where all of the driver's errors pass: from connecting, executing, fetching and committing."""

    wrapper: PatroniMixin

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Note an error of the driver, and raise it as Django's."""
        if exc_value is None:
            return
        if isinstance(exc_value, self.wrapper.Database.Error):
            connection = self.wrapper.connection
            self.wrapper._distrust(exc_value)  # noqa: SLF001 - the same concept
            note_failure(exc_value, connected=connection is not None, lost=bool(connection and connection.closed))
        super().__exit__(exc_type, exc_value, traceback)


def _forget_pool(pools: dict[str, PatroniPool], alias: str, pool: PatroniPool) -> PatroniPool | None:
    """Forget a pool that has given up; return the one that somebody has put in its place."""
    with _forgetting:
        if pools.get(alias) is pool:
            del pools[alias]
        return pools.get(alias)


_forgetting: Final = threading.Lock()


def _mixed(mixin: type[Any], base: type[Any]) -> type[Any]:
    return base if issubclass(base, mixin) else type(base.__name__, (mixin, base), {"__module__": mixin.__module__})


_wrappers: weakref.WeakSet[PatroniMixin] = weakref.WeakSet()
# Connections and pools of the parent, kept so that nothing collects them: closing would end the parent's
# sessions, or wait for threads that do not exist here.
_inherited: Final[list[Any]] = []


def _after_fork_in_child() -> None:
    for wrapper in list(_wrappers):
        wrapper._forget_inherited()  # noqa: SLF001 - the same concept
    _inherited.extend(PatroniMixin._connection_pools.values())  # noqa: SLF001
    PatroniMixin._connection_pools.clear()  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork_in_child)
