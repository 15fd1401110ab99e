"""Getting a connection: candidates from the snapshot, one attempt after the other, waits until a deadline.

The decisions are made by :class:`Acquisition`, which does no I/O; :func:`acquire` and :func:`acquire_async`
carry its steps out for threads and for coroutines.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import logging
import math
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from patroni_db.bounded import call_within
from patroni_db.connections import Stamp, driver_of, holds_role, may_serve, still_right
from patroni_db.errors import DiscoveryError, NoPrimaryError, NoReplicaError, NoServerError
from patroni_db.faults import Fault, classify, is_refusal, may_be_poolers, sqlstate_of
from patroni_db.forking import no_fork
from patroni_db.gate import Admission
from patroni_db.isolation import lower_default, lower_default_async, refuses_serializable
from patroni_db.ping import accepts_connections
from patroni_db.selection import Target, candidates
from patroni_db.sockets import check_host
from patroni_db.time_limit import time_left

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from patroni_db.client import NodeStatus
    from patroni_db.config import PatroniConfig
    from patroni_db.discovery import Discovery
    from patroni_db.signals import Waiter
    from patroni_db.snapshot import Snapshot
    from patroni_db.topology import Address

__all__ = ["Acquisition", "Attempt", "Pause", "WrongRoleError", "acquire", "acquire_async", "knocking_pause"]

logger = logging.getLogger("patroni_db.connections")

# libpq and psycopg raise any smaller connect_timeout to two seconds, so it is the least for all drivers.
ATTEMPT_TIMEOUT: Final = 2.0
_LEAST_TIMEOUT: Final = 0.1
# So much longer than until the deadline may the last attempt take, and the very first look at a cluster.
_GRACE: Final = 0.4
# Where another server can be read from, a silent one is not waited for longer than this.
_READING_LIMIT: Final = 1.0
# A refusal comes at once; an attempt that took longer than this ran into its timeout.
_PROMPT: Final = 0.9 * ATTEMPT_TIMEOUT
# A primary that is not reached is asked again after so many seconds: when its own Patroni says that PostgreSQL runs,
# when that says that it does not (yet) or has not said anything, and when its Patroni does not answer either. The first
# grows while it is of no avail: doubled after two seconds, tripled after three, up to the last. The second does not:
# Patroni can be a second late in telling that PostgreSQL is up again (measured). What Patroni says of a new leader, or
# of the same one in a new state, cuts the wait short.
_KNOCKING_PAUSE: Final = 0.05
_STARTING_PAUSE: Final = 0.1
_SILENT_PAUSE: Final = 1.0
# Servers for reads that all failed are tried again after these seconds, doubled each time, up to the pause above.
_READING_PAUSE: Final = 0.1
# A server that Patroni names as primary while it is being promoted is asked again over the same session: after this
# many seconds at first, and after a twentieth of the time it has taken, up to the pause above.
_PROMOTION_PAUSE: Final = 0.01
_PROMOTION_SHARE: Final = 20
# A server that accepts connections but not ours may just have come up between the two: ask it twice.
_REFUSALS_THAT_COUNT: Final = 2

C = TypeVar("C")


class WrongRoleError(Exception):
    """A connection was made, and the server proved not to have the role that was asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """Connect to this server now.

    :param stamp: the server, and the generation it was chosen under
    :param timeout: seconds in which a server that is well has answered, for the driver's own timeout
    :param limit: seconds after which the attempt is given up, whatever it hangs in
    """

    stamp: Stamp
    timeout: float
    limit: float

    @property
    def address(self) -> Address:
        """Where to connect to."""
        return self.stamp.address


@dataclasses.dataclass(frozen=True, slots=True)
class Pause:
    """Wait until woken, or `timeout` seconds, before asking for the next step."""

    waiter: Waiter
    timeout: float


class Acquisition:
    """One search for a connection, as a sequence of steps.

    Ask for :meth:`step` and do what it says; report each attempt with :meth:`failed` or :meth:`succeeded`;
    call :meth:`end` in any case.

    :param discovery: the view and the clock
    :param config: target, restrictions and the deadline, unless a :func:`~patroni_db.time_limit.time_limit` holds
    """

    def __init__(self, discovery: Discovery, config: PatroniConfig) -> None:
        self._discovery = discovery
        self._config = config
        self._began = discovery.clock()
        self._waits = time_left(config.failover_timeout)
        self._deadline = self._began + self._waits
        self._untried: list[Stamp] = []
        self._round_size = 0
        # How many rounds in a row found no server, and when the last one ended.
        self._failed_rounds = 0
        self._failed_at = -math.inf
        # What is tried in vain, whether its Patroni said meanwhile that it runs, and since when all that holds.
        self._in_vain: tuple[Address, bool, float] | None = None
        self._is_pooled = config.port is not None
        self._was_told = False
        self._refusals = 0
        self._refusal: BaseException | None = None
        self._last: tuple[Stamp, BaseException] | None = None

    def step(self) -> Attempt | Pause:
        """Return what to do next.

        :raises NoServerError: the deadline has passed, with the last failure as its cause
        :raises DiscoveryError: nothing is known of the cluster, and asking again cannot help
        :raises Exception: the driver's own error, when living servers refuse the login
        """
        if self._refusal is not None:
            raise self._refusal
        left = self._deadline - self._discovery.clock()
        if left <= 0 and self._last is not None:
            raise self._out_of_time()
        if self._untried:
            return self._attempt(self._untried.pop(0))
        look_again = self._discovery.ensure_watching()
        # Take places in the queues first and look at the state afterwards: no notification in between is lost.
        looked, opened = self._discovery.looked.enter(), self._discovery.gate.opened.enter()
        kept: Waiter | None = None
        try:
            kept, stamps = self._new_round(looked, opened)
        finally:
            for waiter in (looked, opened):
                if waiter is not kept:
                    waiter.cancel()
        if kept is None:
            self._round_size, self._untried = len(stamps), stamps[1:]
            return self._attempt(stamps[0])
        if self._discovery.snapshot is None and self._discovery.failure is None:
            left = max(left, self._grace_left())  # the very first look is under way
        if left <= 0:
            kept.cancel()
            raise self._out_of_time()
        return Pause(kept, min(left, self._rest() or math.inf, look_again))

    def failed(self, attempt: Attempt, error: BaseException, *, refused: bool, elapsed: float = 0.0) -> None:
        """Report that the server was not reached, had the wrong role, or refused the login.

        :param refused: whether the server lives and accepts connections, only not this one. A pooler lives on without
            its server: what may be about that is tried again until the deadline
        :param elapsed: seconds that the attempt took
        """
        _forget_frames(error)
        self._last = (attempt.stamp, error)
        if refused and attempt.stamp.pooled and may_be_poolers(error):
            refused = False
            if not self._was_told:
                self._was_told = True
                beside = attempt.stamp.member or attempt.address
                logger.warning("the pooler beside %s refuses us: %s", beside, str(error).strip())
        logger.debug("%s (%s): %s", attempt.stamp.member, attempt.address, str(error))
        if refused:
            if not self._config.target.writes:  # it may be full (53300), which libpq does not tell from other refusals
                self._discovery.rest(attempt.stamp.member)
            self._refusals += 1
            # With a SQLSTATE it is sure why: servers lock accounts out after some logins.
            least = 1 if is_refusal(error) and not attempt.stamp.pooled else _REFUSALS_THAT_COUNT
            if self._refusals >= max(least, self._round_size):
                self._refusal = error
            return
        self._refusals = 0
        if not self._untried:
            self._failed_rounds += 1
            self._failed_at = self._discovery.clock()
        self._discovery.invalidate(attempt.stamp.member, attempt.address)
        if elapsed >= min(_PROMPT, attempt.limit):
            self._discovery.suspect(attempt.stamp.member, attempt.address)

    def is_overtaken(self, attempt: Attempt) -> bool:
        """Return whether routing has moved away from the server since it was chosen."""
        stamp, snapshot = attempt.stamp, self._discovery.snapshot
        if snapshot is None or snapshot.generation == stamp.generation:
            return False
        return not may_serve(stamp, self._config, snapshot)

    def succeeded(self, attempt: Attempt) -> Stamp | None:
        """Report that the server was reached and proved its role.

        :returns: the connection's stamp; None when routing has moved away from that server meanwhile, so
            that the connection must be closed
        """
        if self.is_overtaken(attempt):
            return None
        stamp, snapshot = attempt.stamp, self._discovery.snapshot
        if snapshot is not None and still_right(stamp, self._config, snapshot):
            stamp = stamp.renewed(snapshot.generation)
        self._discovery.proved(stamp.member, stamp.address, primary=self._config.target is Target.PRIMARY, seeker=self)
        if self._last is not None:
            waited = self._discovery.clock() - self._began
            logger.debug("connected to %s (%s) after %.2f s", stamp.member, stamp.address, waited)
        return stamp

    def promotion_pause(self, attempt: Attempt, waited: float) -> float | None:
        """Return after how many seconds to ask the reached server again for its role; None to give it up.

        Patroni names a new primary up to 0.3 s before that one can be written to. A session that is there
        already learns of it a whole connection attempt earlier than a new one.

        :param waited: seconds since the server first said that it stands by
        """
        if self._config.target is not Target.PRIMARY or self._discovery.clock() >= self._deadline:
            return None
        snapshot = self._discovery.snapshot
        named = snapshot.primary[1] if snapshot is not None and snapshot.primary else None
        if named != attempt.address:
            return None
        return min(max(_PROMOTION_PAUSE, waited / _PROMOTION_SHARE), _KNOCKING_PAUSE)

    def limit(self) -> float:
        """Return how many seconds something that hangs may still take: until the deadline, and a little more."""
        return max(0.0, self._deadline - self._discovery.clock()) + _GRACE

    def explains(self, attempt: Attempt) -> bool:
        """Return whether Patroni says itself that the server it names as primary cannot be reached now."""
        snapshot, status = self._discovery.snapshot, self._discovery.leader_status()
        named = snapshot.primary[1] if snapshot is not None and snapshot.primary else None
        if status is None or isinstance(status, DiscoveryError):
            return False
        return named == attempt.address and not status.is_primary

    def end(self) -> None:
        """Let another one probe for the primary."""
        self._discovery.gate.leave(self)

    def _grace_left(self) -> float:
        return self._deadline + _GRACE - self._discovery.clock()

    def _new_round(self, looked: Waiter, opened: Waiter) -> tuple[Waiter | None, list[Stamp]]:
        """Return the servers to try now, or what to wait for before there may be any."""
        snapshot = self._discovery.snapshot
        if snapshot is None:
            failure = self._discovery.failure
            if self._config.fallback_hosts and failure is not None and not self._rest():
                stamps = [Stamp(None, address, 0, self._is_pooled) for address in self._config.fallback_hosts]
                self._discovery.rng.shuffle(stamps)
                return None, stamps
            if failure is not None and not failure.transient and not self._config.fallback_hosts:
                raise failure
            return looked, []
        if self._config.target is Target.PRIMARY:
            address = snapshot.primary[1] if snapshot.primary else None
            if self._discovery.gate.admit(self, address) is Admission.WAIT:
                return opened, []
        if self._rest():
            return looked, []
        stamps = self._stamps(snapshot)
        return (None, stamps) if stamps else (looked, [])

    def _rest(self) -> float:
        """Return for how many seconds the servers that just failed must be left alone.

        They are not when routing has moved since.
        """
        if not self._failed_rounds or self._last is None:
            return 0.0
        stamp, snapshot = self._last[0], self._discovery.snapshot
        if self._config.target is Target.PRIMARY and snapshot is not None:
            if snapshot.primary is not None and snapshot.primary[1] != stamp.address:
                return 0.0
            status = self._discovery.leader_status()
            pause = knocking_pause(status, self._waited(stamp.address, status))
        elif snapshot is not None and snapshot.generation != stamp.generation:
            return 0.0
        else:
            pause = min(_READING_PAUSE * 2.0 ** min(self._failed_rounds - 1, 10), _SILENT_PAUSE)
        return max(0.0, self._failed_at + pause - self._discovery.clock())

    def _waited(self, address: Address, status: NodeStatus | DiscoveryError | None) -> float:
        """Return for how long the server has been tried in vain since its Patroni last changed its mind about it."""
        now = self._discovery.clock()
        runs = status is not None and not isinstance(status, DiscoveryError) and status.is_primary
        if self._in_vain is None or self._in_vain[:2] != (address, runs):
            self._in_vain = (address, runs, now)
        return now - self._in_vain[2]

    def _stamps(self, snapshot: Snapshot) -> list[Stamp]:
        members = candidates(
            snapshot.topology,
            self._config.target,
            self._discovery.rng,
            max_lag=self._config.max_lag,
            tags=self._config.tags,
            resting=self._discovery.resting(),
            loads=self._discovery.live.loads(self._config),
        )
        pairs = ((member, snapshot.address_of(member)) for member in members)
        primary = snapshot.topology.primary
        return [
            Stamp(member.name, address, snapshot.generation, self._is_pooled, primary=member is primary)
            for member, address in pairs
            if address
        ]

    def _attempt(self, stamp: Stamp) -> Attempt:
        remaining = self._deadline - self._discovery.clock()
        limit = self.limit()
        if self._untried and not self._config.target.writes:
            limit = min(limit, _READING_LIMIT)
        return Attempt(stamp, max(_LEAST_TIMEOUT, min(ATTEMPT_TIMEOUT, remaining)), limit)

    def _out_of_time(self) -> NoServerError:
        sought, kind = _SOUGHT[self._config.target]
        snapshot, failure = self._discovery.snapshot, self._discovery.failure
        scope = self._config.scope or (snapshot.topology.scope if snapshot else None)
        where = f" of cluster {scope}" if scope else ""
        limit = "patroni_failover_timeout" if self._waits == self._config.failover_timeout else "all the time left"
        waited = f"{self._waits:.3g} s ({limit})"
        cause: BaseException | None = failure
        why = str(failure) if failure else f"Patroni names none ({_summary(snapshot)})"
        if self._last is not None:
            stamp, cause = self._last
            why = f"last tried {stamp.member or 'fallback host'} at {stamp.address}: {cause}"
        error = kind(f"no {sought}{where} within {waited}; {why.strip()}", why.strip())
        error.__cause__ = cause
        return error


def knocking_pause(status: NodeStatus | DiscoveryError | None, waited: float) -> float:
    """Return after how many seconds to try a primary again that was not reached.

    :param status: what its own Patroni says of it, or why that does not answer; None while nobody has asked
    :param waited: seconds for which it was not reached while its Patroni said the same
    """
    if isinstance(status, DiscoveryError):
        return _SILENT_PAUSE
    if status is None or not status.is_primary:
        return _STARTING_PAUSE
    return min(_KNOCKING_PAUSE * max(1.0, waited), _SILENT_PAUSE)


def acquire(discovery: Discovery, config: PatroniConfig, connect: Callable[[Attempt], C]) -> tuple[C, Stamp]:
    """Return a connection to a server that proved the role of ``config.target``, and its stamp.

    :param connect: makes a connection with the caller's driver to the attempt's address, within its timeout
    :raises NoServerError: the deadline has passed
    :raises DiscoveryError: nothing is known of the cluster, and asking again cannot help
    :raises Exception: the driver's own error, unchanged, when it has nothing to do with availability
    """
    search = Acquisition(discovery, config)
    try:
        while True:
            step = search.step()
            if isinstance(step, Pause):
                step.waiter.wait(step.timeout)
                continue
            began = discovery.clock()
            reach = functools.partial(_reach, discovery, config, search, step, connect)
            try:
                connection, held = call_within(step.limit, reach, _close_reached)
            except Exception as exc:  # noqa: BLE001 - raised again unless it is about the server
                elapsed = discovery.clock() - began
                refused = _judge(search, step, exc, elapsed)
                if refused is None:
                    refused = _is_login_refused(search, step)
                search.failed(step, exc, refused=refused, elapsed=elapsed)
                continue
            stamp = search.succeeded(step) if held else None
            if stamp is not None:
                return connection, stamp
            _close(connection)
            search.failed(step, _wrong_role(config, held=held), refused=False)
    finally:
        search.end()


async def acquire_async(
    discovery: Discovery, config: PatroniConfig, connect: Callable[[Attempt], Awaitable[C]]
) -> tuple[C, Stamp]:
    """Do the same as :func:`acquire` for coroutines: nothing here blocks the event loop."""
    search = Acquisition(discovery, config)
    try:
        while True:
            step = search.step()
            if isinstance(step, Pause):
                await step.waiter.wait_async(step.timeout)
                continue
            began = discovery.clock()
            try:
                async with asyncio.timeout(step.limit):
                    connection, held = await _reach_async(discovery, config, search, step, connect)
            except Exception as exc:  # noqa: BLE001 - raised again unless it is about the server
                elapsed = discovery.clock() - began
                refused = _judge(search, step, exc, elapsed)
                if refused is None:
                    refused = await _is_login_refused_async(search, step)
                search.failed(step, exc, refused=refused, elapsed=elapsed)
                continue
            stamp = search.succeeded(step) if held else None
            if stamp is not None:
                return connection, stamp
            await _close_async(connection)
            search.failed(step, _wrong_role(config, held=held), refused=False)
    finally:
        search.end()


# -- One attempt ----------------------------------------------------------------------------------------------


class _LostWhileAskedError(Exception):
    """The connection was made, and asking the server for its role failed: the cause tells how."""


def _reach(
    discovery: Discovery,
    config: PatroniConfig,
    search: Acquisition,
    attempt: Attempt,
    connect: Callable[[Attempt], C],
) -> tuple[C, bool]:
    """Connect; return the connection and whether the server proved its role."""
    _check_hosts(attempt)
    with no_fork():
        connection = connect(attempt)
    try:
        return connection, _proves_role(discovery, config, search, attempt, connection)
    except BaseException as exc:
        _close(connection)
        raise _LostWhileAskedError from exc


async def _reach_async(
    discovery: Discovery,
    config: PatroniConfig,
    search: Acquisition,
    attempt: Attempt,
    connect: Callable[[Attempt], Awaitable[C]],
) -> tuple[C, bool]:
    """Do the same as :func:`_reach` for coroutines."""
    _check_hosts(attempt)
    connection = await connect(attempt)
    try:
        return connection, await _proves_role_async(discovery, config, search, attempt, connection)
    except Exception as exc:
        await _close_async(connection)
        raise _LostWhileAskedError from exc
    except BaseException:  # cancelled
        await _close_async(connection)
        raise


def _check_hosts(attempt: Attempt) -> None:
    """Check the hosts of a server before a driver sees them.

    :raises OSError: one of them can be no name of a host
    """
    for host in attempt.address.hosts:
        check_host(host)


def _close_reached(reached: tuple[Any, bool]) -> None:
    _close(reached[0])


def _may_be_lowered(connection: Any, stamp: Stamp, config: PatroniConfig) -> bool:
    """Return whether a session must not be SERIALIZABLE, and is this client's alone: a pooler's serves others too."""
    return not stamp.pooled and refuses_serializable(driver_of(connection), connection, stamp, config.target)


# -- Proving the role -----------------------------------------------------------------------------------------


def _proves_role(
    discovery: Discovery, config: PatroniConfig, search: Acquisition, attempt: Attempt, connection: Any
) -> bool:
    """Return whether the server has the role; of one that is being promoted, once it is."""
    # Before anything is asked: from here on a move of the leader ends it, also while a pooler waits for its server.
    discovery.live.add(connection, attempt.stamp, config)
    held = holds_role(driver_of(connection), connection, attempt.stamp, config.target)
    if held is None:
        held = not search.is_overtaken(attempt) and _ask_role(connection) is config.target.in_hot_standby
    pause = None if held else search.promotion_pause(attempt, 0.0)
    began = discovery.clock()
    while not held and pause is not None:
        time.sleep(pause)
        held = _ask_role(connection) is config.target.in_hot_standby
        pause = search.promotion_pause(attempt, discovery.clock() - began)
    if held and _may_be_lowered(connection, attempt.stamp, config):
        lower_default(connection)
    return held


async def _proves_role_async(
    discovery: Discovery, config: PatroniConfig, search: Acquisition, attempt: Attempt, connection: Any
) -> bool:
    """Do the same as :func:`_proves_role` for coroutines."""
    # Before anything is asked: from here on a move of the leader ends it, also while a pooler waits for its server.
    discovery.live.add(connection, attempt.stamp, config)
    held = holds_role(driver_of(connection), connection, attempt.stamp, config.target)
    if held is None:
        held = not search.is_overtaken(attempt) and await _ask_role_async(connection) is config.target.in_hot_standby
    pause = None if held else search.promotion_pause(attempt, 0.0)
    began = discovery.clock()
    while not held and pause is not None:
        await asyncio.sleep(pause)
        held = await _ask_role_async(connection) is config.target.in_hot_standby
        pause = search.promotion_pause(attempt, discovery.clock() - began)
    if held and _may_be_lowered(connection, attempt.stamp, config):
        await lower_default_async(connection)
    return held


# -- Judging a failed attempt --------------------------------------------------------------------------------


def _judge(search: Acquisition, attempt: Attempt, error: Exception, elapsed: float) -> bool | None:
    """Return whether a living server refused the login; None when only the server can tell.

    :raises Exception: the driver's own error, when it is not about the server's availability
    """
    if isinstance(error, _LostWhileAskedError):
        cause = error.__cause__
        if cause is not None and not (isinstance(cause, Exception) and classify(cause) is Fault.UNAVAILABLE):
            raise cause
        return False
    if classify(error) is Fault.OTHER and not is_refusal(error):
        raise error  # the application's own: a bad option, a missing file, a bug
    if _needs_asking(error, elapsed) and not search.explains(attempt):
        return None
    return is_refusal(error) or classify(error) is Fault.OVERLOADED


def _needs_asking(exc: Exception, elapsed: float) -> bool:
    """Return whether only the server can tell why the attempt failed.

    libpq reports a failed connection without SQLSTATE: a wrong password and a server that starts up look
    alike. So does asyncpg what it refuses itself: a server without TLS (a bare ConnectionError), a method of
    authentication. An attempt that timed out needs no asking: a refusal is prompt.
    """
    drivers = any(cls.__module__.startswith(("psycopg", "asyncpg")) for cls in type(exc).__mro__)
    return (drivers or type(exc) is ConnectionError) and sqlstate_of(exc) is None and elapsed < _PROMPT


def _is_login_refused(search: Acquisition, attempt: Attempt) -> bool:
    """Return whether the server accepts connections, only not the one that was attempted."""
    try:
        ask = functools.partial(accepts_connections, attempt.address, ATTEMPT_TIMEOUT)
        return call_within(search.limit(), ask, _forget)
    except TimeoutError:
        return False


async def _is_login_refused_async(search: Acquisition, attempt: Attempt) -> bool:
    """Do the same as :func:`_is_login_refused` for coroutines."""
    try:
        return await asyncio.to_thread(_is_login_refused, search, attempt)
    except RuntimeError:  # no thread can be started: the event loop stands still for an answer, at most two seconds
        return _is_login_refused(search, attempt)


def _forget_frames(error: BaseException) -> None:
    """Let go of the frames in which an error was raised: psycopg's hold the socket of a failed attempt."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__


def _forget(_answer: bool) -> None:  # noqa: FBT001 - as call_within hands it over
    """Nothing is held by an answer that came too late."""


def _wrong_role(config: PatroniConfig, *, held: bool) -> WrongRoleError:
    if held:
        return WrongRoleError("routing has moved to another server meanwhile")
    return WrongRoleError(f"the server is not what patroni_target={config.target} asks for")


def _summary(snapshot: Snapshot | None) -> str:
    if snapshot is None:
        return "nothing is known of the cluster"
    return ", ".join(
        f"{m.name}: {m.role} {m.state}{''.join(f', refused: {why}' for why in m.refused)}"
        for m in snapshot.topology.members
    )


# -- Asking a connection -------------------------------------------------------------------------------------

_IN_RECOVERY: Final = "SELECT pg_catalog.pg_is_in_recovery()"


def _ask_role(connection: Any) -> bool:
    """Ask for the role by a statement: before PostgreSQL 14, and behind poolers."""
    with connection.cursor() as cursor:
        cursor.execute(_IN_RECOVERY)
        (in_recovery,) = cursor.fetchone()
    connection.rollback()
    return bool(in_recovery)


async def _ask_role_async(connection: Any) -> bool:
    if hasattr(connection, "fetchval"):  # asyncpg
        return bool(await connection.fetchval(_IN_RECOVERY))
    async with connection.cursor() as cursor:
        await cursor.execute(_IN_RECOVERY)
        (in_recovery,) = await cursor.fetchone()
    await connection.rollback()
    return bool(in_recovery)


def _close(connection: Any) -> None:
    connection.close()


async def _close_async(connection: Any) -> None:
    if hasattr(connection, "terminate"):  # asyncpg: no good-bye to wait for
        connection.terminate()
        return
    closing = connection.close()
    if inspect.isawaitable(closing):
        await closing


_SOUGHT: Final[dict[Target, tuple[str, type[NoServerError]]]] = {
    Target.PRIMARY: ("primary", NoPrimaryError),
    Target.PRIMARY_PREFERRED: ("primary or replica", NoServerError),
    Target.REPLICA: ("replica", NoReplicaError),
    Target.REPLICA_PREFERRED: ("replica or primary", NoServerError),
    Target.ANY: ("server", NoServerError),
}
