"""Sessions whose transactions go to the primary or, where they may, to a replica.

::

    Session = sessionmaker(writer, class_=RoutingSession, reader=reader)
    with Session(read_only=True) as session:   # a replica
        ...
    with Session.begin() as session:           # the primary
        ...

It is always a whole transaction that is routed, by SQLAlchemy's hook ``Session.get_bind``, never a statement: one
transaction reads from one node.
"""

from __future__ import annotations

import inspect
import logging
import re
from typing import TYPE_CHECKING, Any, Final, Literal

import sqlalchemy
from sqlalchemy import Engine, event
from sqlalchemy.exc import ArgumentError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import EMPTY_DICT

from patroni_db.causal import Standing
from patroni_db.causal_context import causal_scope, observe, observed
from patroni_db.connections import in_hot_standby
from patroni_db.sql_effect import Effect
from sqlalchemy_dialect.clauses import effect_of
from sqlalchemy_dialect.declarations import READ_ONLY, USE, declaration
from sqlalchemy_dialect.events import events_of
from sqlalchemy_dialect.marks import mark_of
from sqlalchemy_dialect.route import ROUTE, Route, guard, refusal
from sqlalchemy_dialect.tokens import standing_on, token_after_commit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection
    from sqlalchemy.orm import ORMExecuteState, SessionTransaction

    from patroni_db.causal import CausalToken

__all__ = ["AsyncRoutingSession", "RoutingSession"]

logger = logging.getLogger("patroni_db.sqlalchemy")

OnWrite = Literal["raise", "switch"]

# What can be set on a connection only before its transaction begins.
_BEFORE_BEGIN: Final = frozenset({"isolation_level", "postgresql_readonly", "postgresql_deferrable"})
# Whether all sessions listen to do_orm_execute. Below SQLAlchemy 2.0.50 a listener breaks yield_per together with
# selectinload(): there only those do that may step around our methods.
_LISTENS: Final = tuple(int(part) for part in re.findall(r"\d+", sqlalchemy.__version__)[:3]) >= (2, 0, 50)
# What subclasses may override in such a way.
_EXECUTING: Final = ("execute", "scalar", "scalars")


class RoutingSession(Session):
    """A session whose transactions each go to one node.

    A transaction is the primary's, unless it is declared to read only (`read_only`, the execution option
    ``patroni_read_only``, :func:`~sqlalchemy_dialect.declarations.use_replica`): then it is a replica's, and a write
    in it is refused before it is sent. With `automatic`, one that is not declared goes by its first statement: to a
    replica if that is known to read only, else to the primary.

    :param bind: the engine for the primary. A Connection is used as it is: nothing is routed then
    :param reader: the engine for replicas; without it everything is the primary's
    :param read_only: whether all transactions are declared to read only
    :param automatic: whether a transaction may begin on a replica because its first statement only reads
    :param on_write: what becomes of such a transaction when it comes to what needs the primary: ``raise`` has it raise
        :class:`~sqlalchemy_dialect.errors.TransactionOnReplicaError`, ``switch`` ends it on the replica and goes on in
        one on the primary. What was read before may be outdated then
    :param causal: whether to take a causal token after each commit that wrote, so that later reads see it wherever they
        are made. Without it, that is done within a :func:`~patroni_db.causal_context.causal_context` only, and outside
        of one this session itself reads from the primary after it wrote, until it is closed
    :param cluster: the name by which causal tokens know the cluster
    :param kwargs: ``Session``'s
    :raises ArgumentError: the arguments contradict each other, or an engine cannot be used
    """

    def __init__(
        self,
        bind: Any = None,
        *,
        reader: Engine | None = None,
        read_only: bool = False,
        automatic: bool = False,
        on_write: OnWrite = "raise",
        causal: bool = False,
        cluster: str = "default",
        **kwargs: Any,
    ) -> None:
        self._route: Route | None = None
        self._own: CausalToken | None = None
        self._unseen = False
        self._open: list[Connection] = []
        super().__init__(bind, **kwargs)
        self._reader = reader
        self._read_only = read_only
        self._automatic = automatic
        self._on_write: OnWrite = on_write
        self._causal = causal
        self._cluster = cluster
        self._check()
        self._routes = isinstance(bind, Engine)
        if self._routes:
            guard(bind)
        if reader is not None:
            guard(reader)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let no other class step around the routing.

        :raises TypeError: naming the class whose ``get_bind`` takes too few arguments
        """
        super().__init_subclass__(**kwargs)
        place, last = cls.__mro__.index(RoutingSession), cls.__mro__.index(Session)
        before, between = cls.__mro__[:place], cls.__mro__[place + 1 : last]
        if not _LISTENS and (between or any(name in vars(base) for base in before for name in _EXECUTING)):
            event.listen(cls, "do_orm_execute", _do_orm_execute)
        for base in before:
            own = vars(base).get("get_bind")
            if callable(own) and not _takes_any_keyword(own):
                raise TypeError(
                    f"{base.__qualname__}.get_bind() must take **kwargs and hand them on to super().get_bind(), "
                    "or RoutingSession cannot route"
                )

    def _check(self) -> None:
        if self._on_write not in {"raise", "switch"}:
            raise ArgumentError(f"on_write is 'raise' or 'switch', not {self._on_write!r}")
        if self._on_write == "switch":
            self._check_switch()
        if self.twophase:
            raise ArgumentError("a RoutingSession does not commit in two phases: use a Session on the writer")
        if self._reader is None:
            return
        if not isinstance(self._reader, Engine):
            raise ArgumentError(f"reader is an Engine, not {type(self._reader).__name__}")
        if self.bind is None:
            raise ArgumentError("a RoutingSession with a reader needs bind=, the engine for the primary")
        for engine, writes in ((self._reader, False), (self.bind, True)):
            events = events_of(engine) if isinstance(engine, Engine) else None
            if events is None and isinstance(engine, Engine):
                raise ArgumentError(f"{engine!r} is not on a Patroni cluster, and a reader was given")
            if events is not None and events.config.target.writes is not writes:
                wanted = "be for the primary" if writes else "prefer or want a replica"
                raise ArgumentError(f"{engine!r} has target {events.config.target}, and must {wanted}")

    def _check_switch(self) -> None:
        if not self._automatic:
            raise ArgumentError("on_write='switch' is for automatic=True")
        if self.join_transaction_mode not in {"conditional_savepoint", "rollback_only"}:
            raise ArgumentError(f"on_write='switch' excludes join_transaction_mode={self.join_transaction_mode!r}")
        early = _BEFORE_BEGIN.intersection(self._general_options())
        if early:
            raise ArgumentError(f"on_write='switch' excludes {', '.join(sorted(early))}: give it to the engines")

    # -- What SQLAlchemy calls -------------------------------------------------------------------------------

    def get_bind(
        self,
        mapper: Any = None,
        *,
        clause: Any = None,
        bind: Any = None,
        patroni_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return what the transaction under way, or the one that begins now, uses.

        What is bound elsewhere (``binds``, ``bind_arguments``) is left alone.

        :param patroni_options: the execution options of the statement or connection, given by the event
            ``do_orm_execute`` and :meth:`connection`. Without them no replica is asked what it shows: the caller only
            wants the engine
        :raises ReadOnlyError: a write, and the transaction is declared to read only
        :raises TransactionOnReplicaError: what needs the primary, and the transaction has begun on a replica
        """
        found: Any = super().get_bind(mapper, clause=clause, bind=bind, **kwargs)
        if bind is not None or not self._routes or found is not self.bind:
            return found
        route = self._route
        if route is not None and not self.in_transaction():
            self._release()  # beginning failed
            route = None
        if route is not None:
            return self._goes_on(route, clause, patroni_options) if route.held else self.bind
        return self._begins(clause, patroni_options)

    # Where the event serves there is no method between the caller and SQLAlchemy, whose warnings name the caller then.
    # The signatures, with all their overloads, stay SQLAlchemy's.
    if not TYPE_CHECKING and not _LISTENS:

        def execute(
            self,
            statement: Any,
            params: Any = None,
            *,
            execution_options: Any = EMPTY_DICT,
            bind_arguments: Any = None,
            **kwargs: Any,
        ) -> Any:
            """Do what ``Session.execute`` does, on the node that is right for the transaction."""
            arguments = self._told(bind_arguments, execution_options)
            return super().execute(
                statement, params, execution_options=execution_options, bind_arguments=arguments, **kwargs
            )

        def scalar(
            self,
            statement: Any,
            params: Any = None,
            *,
            execution_options: Any = EMPTY_DICT,
            bind_arguments: Any = None,
            **kwargs: Any,
        ) -> Any:
            """Do what ``Session.scalar`` does, on the node that is right for the transaction."""
            arguments = self._told(bind_arguments, execution_options)
            return super().scalar(
                statement, params, execution_options=execution_options, bind_arguments=arguments, **kwargs
            )

        def scalars(
            self,
            statement: Any,
            params: Any = None,
            *,
            execution_options: Any = EMPTY_DICT,
            bind_arguments: Any = None,
            **kwargs: Any,
        ) -> Any:
            """Do what ``Session.scalars`` does, on the node that is right for the transaction."""
            arguments = self._told(bind_arguments, execution_options)
            return super().scalars(
                statement, params, execution_options=execution_options, bind_arguments=arguments, **kwargs
            )

    def connection(self, bind_arguments: Any = None, execution_options: Mapping[str, Any] | None = None) -> Connection:
        """Return the transaction's connection, beginning one if there is none.

        What will be done with it is not known: unless it is declared to read only it is the primary's.
        """
        return super().connection(self._told(bind_arguments, execution_options), execution_options)

    def close(self) -> None:
        """Close the session: its connections go back, and it knows nothing any more of what it wrote."""
        super().close()
        self._forget()

    def reset(self) -> None:
        """Close the session for another use, as :meth:`close` does."""
        super().reset()
        self._forget()

    def invalidate(self) -> None:
        """Close the session, and its connections for good."""
        super().invalidate()
        self._forget()

    # -- Routing ---------------------------------------------------------------------------------------------

    def _begins(self, clause: Any, given: Mapping[str, Any] | None) -> Any:
        """Return where the transaction that begins goes."""
        declared = declaration(self._options(clause, given), read_only=self._read_only)
        writes = self._flushing or getattr(clause, "is_dml", False)
        if declared.read_only:
            if writes:
                raise refusal(self._named(clause), None, read_only=True)
            if given is None:  # a replica is not asked what it shows: the primary shows everything
                return self.bind if self._unseen or self._token() is not None else self._reader or self.bind
            return self._held(read_only=True, primary=declared.primary)
        if self._reader is None or not self._automatic or declared.primary or writes or clause is None or given is None:
            return self.bind
        if effect_of(clause) is not Effect.READS:
            return self.bind
        return self._held(read_only=False, primary=False)

    def _goes_on(self, route: Route, clause: Any, given: Mapping[str, Any] | None) -> Any:
        """Return where a transaction that began as one that reads goes on.

        Writes that are not seen here are refused when they are about to be sent.
        """
        if self._flushing or getattr(clause, "is_dml", False):
            return self._leaves(route, self._named(clause))
        if given is None:
            return route.bind
        if self._options(clause, given).get(USE) == "primary" and not self._is_on_primary(route):
            return self._leaves(route, f"{self._named(clause)} has patroni_use='primary'")
        if self._on_write == "switch" and not route.read_only and clause is not None:
            effect = effect_of(clause)
            if effect > Effect.READS:
                return self._leaves(route, self._named(clause))
        return route.bind

    def _held(self, *, read_only: bool, primary: bool) -> Any:
        """Return a connection to read on: a replica's, if there is one that shows what it has to."""
        token = self._token()
        if self._reader is not None and not primary and not self._unseen:
            connection = self._reader.connect()
            try:
                shown = token is None or self._is_shown(connection, token)
            except BaseException:
                connection.close()
                raise
            if shown:
                return self._hold(connection, read_only=read_only)
            connection.close()
        if not read_only:
            return self.bind
        engine: Any = self.bind
        return self._hold(engine.connect(), read_only=True)

    def _hold(self, connection: Connection, *, read_only: bool) -> Connection:
        """Let the transaction that begins have `connection`, until :meth:`_release`."""
        route = Route(connection, read_only=read_only, held=True)
        try:
            options: dict[str, Any] = {ROUTE: route}
            # A standby refuses to write by itself, and also what psycopg asks it for afterwards: READ WRITE.
            if connection.dialect.name == "postgresql" and (
                connection.engine is self.bind or _in_hot_standby(connection) == "off"
            ):
                options["postgresql_readonly"] = True
            connection.execution_options(**options)
            if self._on_write == "switch" and not read_only:
                connection.begin()  # SQLAlchemy joins a transaction that it finds, and leaves ending it to us
        except BaseException:
            connection.close()
            raise
        self._route = route
        self._open.append(connection)
        return connection

    def _leaves(self, route: Route, what: str) -> Any:
        """Return where a transaction goes on that cannot go on where it reads.

        :raises ReadOnlyError: nowhere: it was declared to read only
        :raises TransactionOnReplicaError: nowhere: nobody said that it may
        """
        connection = route.connection
        if self._on_write != "switch" or route.read_only or connection.in_nested_transaction():
            raise refusal(what, connection, read_only=route.read_only)
        logger.info("a transaction that has read from a replica goes on on the primary: %s", what)
        self._route = None
        dbapi: Any = connection.dialect.loaded_dbapi
        try:
            # The session ends SQLAlchemy's own transaction with all its others, and would warn if it were gone.
            connection.connection.rollback()
        except dbapi.Error as exc:  # nobody needs it any more
            connection.invalidate(exc)
        return self.bind

    def _release(self) -> None:
        """Let go of what the transaction had."""
        self._route = None
        while self._open:
            self._open.pop().close()

    def _forget(self) -> None:
        self._release()
        self._own = None
        self._unseen = False

    def _is_on_primary(self, route: Route) -> bool:
        return route.connection.engine is self.bind or _in_hot_standby(route.connection) == "off"

    # -- What was written ------------------------------------------------------------------------------------

    @property
    def _notes_writes(self) -> bool:
        return self._reader is not None or self._takes_tokens

    @property
    def _takes_tokens(self) -> bool:
        return self._causal or causal_scope() is not None

    def _began(self, connection: Connection) -> None:
        """Go on there, and have the primary's connection note whether something is written, if that matters.

        :raises InvalidRequestError: a subclass chose a replica by itself, where it must not
        """
        if self._route is not None:
            self._route.begun = self._route.begun or connection is self._route.connection
            return
        if not self._routes or connection.engine not in {self.bind, self._reader}:
            return
        # An override of get_bind or connection() may have stepped around the routing. What was promised holds here too.
        declared = declaration(connection.get_execution_options(), read_only=self._read_only)
        if declared.read_only:
            connection.execution_options(**{READ_ONLY: True})
        if connection.engine is not self.bind:
            token = self._token()
            if declared.primary or self._unseen or (token is not None and not self._is_shown(connection, token)):
                why = "although the primary was asked for" if declared.primary else "that does not show what it has to"
                raise InvalidRequestError(
                    f"{type(self).__name__} chose a replica {why}: have its get_bind() and connection() call those of "
                    "RoutingSession, with all arguments"
                )
            return
        self._route = Route(connection)
        if self._notes_writes:
            connection.execution_options(**{ROUTE: self._route})

    def _is_committing(self) -> None:
        if self._route is not None:
            self._route.committing = True

    def _committed(self) -> None:
        """Take a token for what was committed, or remember that there is none."""
        route = self._route
        if route is None or not route.wrote:
            return
        route.committed = True
        token = token_after_commit(route.connection) if self._takes_tokens else None
        self._unseen = token is None
        if token is not None:
            self._own = token.later(self._own)
            observe(token, self._cluster)

    def _ended(self) -> None:
        route = self._route
        if route is not None and route.wrote and route.committing and not route.committed:
            self._unseen = True  # its COMMIT may have happened
        self._release()

    def _token(self) -> CausalToken | None:
        """Return what this session has to see."""
        known = observed(self._cluster)
        return known if self._own is None else self._own.later(known)

    def _is_shown(self, connection: Connection, token: CausalToken) -> bool:
        standing = standing_on(connection, token)
        if standing is Standing.LOST:
            logger.warning("what the causal token %s stands for was lost in a failover: any server is as good", token)
            scope = causal_scope()
            if scope is not None:
                scope.forget(token, self._cluster)
            if self._own == token:
                self._own = None
        return standing is not Standing.BEHIND

    # -- Options ---------------------------------------------------------------------------------------------

    def _told(self, bind_arguments: Mapping[str, Any] | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the arguments of :meth:`get_bind` for what is executed, not only asked for."""
        return {**(bind_arguments or {}), "patroni_options": options or {}}

    def _options(self, clause: Any, given: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return the execution options in force, as SQLAlchemy merges them."""
        general, own = self._general_options(), {} if clause is None else clause.get_execution_options()
        return {**general, **own, **(given or {})} if general or own else (given or {})

    def _general_options(self) -> Mapping[str, Any]:
        options: Mapping[str, Any] = getattr(self, "execution_options", None) or {}  # from SQLAlchemy 2.1
        return options

    def _named(self, clause: Any) -> str:
        if self._flushing:
            return "a flush writes"
        if getattr(clause, "is_dml", False):
            return f"{type(clause).__name__.upper()} writes"
        return f"{type(clause).__name__} may write, or needs the primary"


class AsyncRoutingSession(AsyncSession):
    """:class:`RoutingSession` on an event loop, for ``async_sessionmaker(writer, class_=..., reader=reader)``.

    :param bind: the AsyncEngine for the primary
    :param reader: the AsyncEngine for replicas
    :param kwargs: what :class:`RoutingSession` takes, and ``AsyncSession``
    :raises ArgumentError: the arguments contradict each other, or an engine cannot be used
    """

    sync_session_class: type[Session] = RoutingSession

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a class whose ``sync_session_class`` would not route, or lacks what another base class needs of it.

        :raises TypeError: naming the classes that it must be a subclass of
        """
        super().__init_subclass__(**kwargs)
        needed = {vars(base)["sync_session_class"] for base in cls.__mro__ if "sync_session_class" in vars(base)}
        if not all(issubclass(cls.sync_session_class, one) for one in needed):
            names = ", ".join(sorted(f"{one.__module__}.{one.__qualname__}" for one in needed))
            raise TypeError(f"{cls.__qualname__}.sync_session_class must be a subclass of all of these: {names}")

    def __init__(
        self,
        bind: Any = None,
        *,
        reader: AsyncEngine | None = None,
        sync_session_class: type[Session] | None = None,
        **kwargs: Any,
    ) -> None:
        if reader is not None and not isinstance(reader, AsyncEngine):
            raise ArgumentError(f"reader is an AsyncEngine, not {type(reader).__name__}")
        chosen = sync_session_class or self.sync_session_class
        if not issubclass(chosen, RoutingSession):
            raise ArgumentError(f"sync_session_class is a subclass of RoutingSession, and {chosen.__qualname__} is not")
        self._reading_engine = reader
        super().__init__(
            bind, reader=None if reader is None else reader.sync_engine, sync_session_class=chosen, **kwargs
        )

    def get_async_bind(self, mapper: Any = None, clause: Any = None, bind: Any = None, **kwargs: Any) -> Any:
        """Return what ``get_bind`` does, as an asynchronous engine or connection. From SQLAlchemy 2.1."""
        reader = self._reading_engine
        if bind is None and reader is not None and self.get_bind(mapper, clause, **kwargs) is reader.sync_engine:
            return reader
        return super().get_async_bind(mapper, clause, bind, **kwargs)


def _takes_any_keyword(function: Callable[..., Any]) -> bool:
    return any(one.kind is one.VAR_KEYWORD for one in inspect.signature(function).parameters.values())


def _in_hot_standby(connection: Connection) -> str | None:
    """Return what the server behind a connection last reported, ``on`` or ``off``; None when that is not known."""
    mark = mark_of(connection.connection)
    if mark is None:
        return None
    return in_hot_standby(mark.driver, connection.connection.driver_connection, mark.stamp)


def _do_orm_execute(state: ORMExecuteState) -> None:
    """Hand the execution options of a statement to :meth:`RoutingSession.get_bind`, below every override."""
    state.bind_arguments["patroni_options"] = state.local_execution_options


def _after_begin(session: RoutingSession, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.parent is None:
        session._began(connection)  # noqa: SLF001 - our own


def _before_commit(session: RoutingSession) -> None:
    if not session.in_nested_transaction():
        session._is_committing()  # noqa: SLF001 - our own


def _after_commit(session: RoutingSession) -> None:
    if not session.in_nested_transaction():
        session._committed()  # noqa: SLF001 - our own


def _after_transaction_end(session: RoutingSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session._ended()  # noqa: SLF001 - our own


if _LISTENS:
    event.listen(RoutingSession, "do_orm_execute", _do_orm_execute)
event.listen(RoutingSession, "after_begin", _after_begin)
event.listen(RoutingSession, "before_commit", _before_commit)
event.listen(RoutingSession, "after_commit", _after_commit)
event.listen(RoutingSession, "after_transaction_end", _after_transaction_end)
