"""The shared, cached view of a cluster: one for each cluster a process uses, whatever uses it.

Readers take an immutable :class:`Snapshot` by reference and no lock. One background thread asks Patroni,
outside any lock; everybody who needs a fresher view waits for its next look and shares what it finds,
failures included. The last good view survives an outage of the API.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import logging
import math
import os
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, TypeVar

from cachetools import TLRUCache

from patroni_db.answers import Answers
from patroni_db.apis import Apis
from patroni_db.balance import Balance
from patroni_db.errors import DiscoveryError, NoPrimaryError
from patroni_db.faults import READING_FAULTS
from patroni_db.forking import no_fork
from patroni_db.gate import PrimaryGate
from patroni_db.identity import Identity
from patroni_db.live import LiveConnections, purpose_of
from patroni_db.network import AddressBook
from patroni_db.ping import is_silent
from patroni_db.push import LeaderPush, push_for
from patroni_db.quarantine import Quarantine
from patroni_db.selection import Target, candidates, first_rank
from patroni_db.signals import Signal
from patroni_db.snapshot import Snapshot
from patroni_db.suspects import Suspects
from patroni_db.views import View
from patroni_db.watcher import TICK, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from patroni_db.apis import Flight
    from patroni_db.client import NodeStatus, PatroniClient
    from patroni_db.config import PatroniConfig
    from patroni_db.connections import Stamp
    from patroni_db.faults import Fault
    from patroni_db.lineage import Lineage
    from patroni_db.topology import Address, Member, Topology

__all__ = ["Discovery", "discovery_for"]

T = TypeVar("T")

logger = logging.getLogger("patroni_db.discovery")

# In an alarm a look follows the last one this soon. An alarm ends when a connection has proved a primary, or,
# where nobody seeks one, after a while.
_ALARM_PAUSE: Final = 0.1
_ALARM_LENGTH: Final = 3.0
# So long after its Patroni fell silent a leader has lost its lock (Patroni's default ttl), or is none the worse for it.
_SILENT_LEADER: Final = 30.0
# A calm look that waits for an answer sees this soon that an alarm was raised meanwhile.
_HEEDS_ALARMS: Final = 0.02
# A view counts as fresh for this many calm cadences; for one alarm pause while there is no leader.
_CALM_LOOKS: Final = 3
# A server that owes an answer for so many seconds is asked whether it lives: once, the leader twice.
_UNANSWERED: Final = 0.25
_LEADERS_SILENCES: Final = 2
_JITTER: Final = 0.1
# So many things that members advertise and must not be connected to are logged; more only fills a disk.
_MANY_REFUSED: Final = 100


class Discovery:
    """One cluster's view, kept by one thread. Use :func:`discovery_for` to share it.

    :param config: where to ask, how often, and what to accept
    :param clock: seconds, monotonic
    :param rng: jitters the cadence and shuffles equals
    :param client: makes the HTTP client; replaced in tests
    :param asks: tells whether a server is silent; replaced in tests
    """

    def __init__(
        self,
        config: PatroniConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        client: Callable[[PatroniConfig], PatroniClient] | None = None,
        asks: Callable[[Address], bool] = is_silent,
    ) -> None:
        self.config = config
        self.clock = clock
        self.rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._book = AddressBook.of(config)
        self._make_client = client or _patroni_client
        self._asks = asks
        self._snapshot: Snapshot | None = None
        self._identity = Identity(config.scope, self._book, clock)
        self._start_clean()
        _discoveries.add(self)

    def _start_clean(self) -> None:
        """Make everything that must not be shared with another process. What was seen is kept: it is immutable."""
        self._lock = threading.Lock()
        self._publishing = threading.RLock()  # a subscriber may use a connection, and that may fail
        self._apis = Apis(self.config, self.clock, self._make_client)
        self._answers = Answers(self._book, self.clock)
        self._watcher = Watcher(self, "patroni-db watcher")
        self._push: LeaderPush | None = None
        self._has_missed_scope = False
        self._failure: DiscoveryError | None = None
        self._looks = 0
        self._alarm_ends = -math.inf
        # Until when the silence of a leader's API keeps the alarm up, although connections to its server succeed.
        self._silence_ends = -math.inf
        # Lifetime by health: a view without a leader is stale almost at once, a healthy one after some calm looks.
        self._fresh: TLRUCache[str, Snapshot] = TLRUCache(1, ttu=_expiry(self.config.refresh), timer=self.clock)
        self._quarantine = Quarantine(self.clock, self.rng)
        self._balances: dict[Hashable, Balance] = {}
        self._rested_before: frozenset[str] = frozenset()
        self._refused: set[tuple[str, str]] = set()
        self._subscribers: tuple[Callable[[Snapshot], None], ...] = ()
        self.looked = Signal()
        self.gate = PrimaryGate()
        self.live = LiveConnections()
        self._suspects = self._nobody_suspected()

    def _nobody_suspected(self) -> Suspects:
        """Return suspects without any, and forget who was silent: whoever asked them is not there to take it back."""
        known = self._snapshot
        if known is not None and known.silent:
            self._snapshot = dataclasses.replace(known, generation=known.generation + 1, silent=frozenset())
        return Suspects(self, self._asks, self.clock)

    # -- What is known ---------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot | None:
        """The last good view, however old; None before the first. Takes no lock."""
        return self._snapshot

    @property
    def failure(self) -> DiscoveryError | None:
        """Why the latest look failed; None after one that succeeded."""
        return self._failure

    def topology(self, timeout: float | None = None) -> Topology:
        """Return the current view: fresh, or the last good one when no API answers.

        :param timeout: seconds to wait for a look where the view is not fresh; by default as long as one
            round of requests may take
        :raises DiscoveryError: nothing was ever learned and the look failed, naming every URL and why
        """
        snapshot = self._fresh_snapshot()
        if snapshot is None:
            self.wait_for_look(timeout)
            snapshot = self._snapshot
        if snapshot is None:
            raise self._failure or self._no_answer_yet()
        return snapshot.topology

    def primary(self, timeout: float = 0.0) -> Member:
        """Return the member that Patroni names as primary. The connection to it still proves the role.

        :param timeout: seconds to wait while there is none
        :raises NoPrimaryError: there is none, with the reason
        :raises DiscoveryError: nothing was ever learned of the cluster
        """
        self.topology()
        member = self.wait_for(lambda topology: topology.primary, timeout)
        if member is None:
            problem = f"cluster {self._identity.scope or '(unnamed)'} has no primary"
            raise NoPrimaryError(problem) from self._failure
        return member

    def replicas(self) -> tuple[Member, ...]:
        """Return the members that serve reads, in random order, those that stream first; perhaps none.

        :raises DiscoveryError: nothing was ever learned of the cluster
        """
        return candidates(self.topology(), Target.REPLICA, self.rng)

    def resting(self) -> frozenset[str]:
        """Return the names of members in quarantine, and of those that hang: they are tried last."""
        snapshot = self._snapshot
        return self._quarantine.resting() | (snapshot.silent if snapshot else frozenset())

    def leader_status(self) -> NodeStatus | DiscoveryError | None:
        """Return what the leader's own API said of its node a moment ago, or why it does not answer.

        None while it was not asked, as where there is no alarm.
        """
        snapshot = self._snapshot
        url = self._answers.leader_url(snapshot.topology) if snapshot is not None else None
        return self._answers.recent_status(url) if url is not None else None

    def lineage(self) -> Lineage | None:
        """Return the cluster's history as last seen; None while it is not known. Takes no lock, waits for nothing.

        It is asked for from the first call on, at the next look and after each change of the timeline: only causal
        tokens need it.
        """
        if not self._identity.wants_lineage:
            self._identity.wants_lineage = True
            self._watcher.start()
            self._watcher.wake()
        return self._identity.lineage

    # -- Waiting ---------------------------------------------------------------------------------------------

    def wait_for(self, found: Callable[[Topology], T | None], timeout: float) -> T | None:
        """Wait until ``found(topology)`` is not None and return that; None when `timeout` seconds passed first."""
        deadline = self.clock() + timeout
        while True:
            waiter = self.looked.enter()
            snapshot = self._snapshot
            result = found(snapshot.topology) if snapshot else None
            remaining = deadline - self.clock()
            if result is not None or remaining <= 0:
                waiter.cancel()
                return result
            waiter.wait(min(remaining, self.ensure_watching()))

    def wait_for_look(self, timeout: float | None = None) -> None:
        """Ask for a look and wait until one that began after this call has ended, or `timeout` seconds passed."""
        deadline = self.clock() + (self._round() if timeout is None else timeout)
        with self._lock:
            wanted = self._looks + 2 if self._looking else self._looks + 1
        self._watcher.start()
        self._watcher.wake()
        while True:
            waiter = self.looked.enter()
            remaining = deadline - self.clock()
            if self._looks >= wanted or remaining <= 0:
                waiter.cancel()
                return
            waiter.wait(min(remaining, self.ensure_watching()))

    def subscribe(self, callback: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Call `callback` with the new snapshot whenever routing moves, in the thread that found out: keep it short.

        :returns: a function that ends the subscription
        """
        with self._lock:
            self._subscribers = (*self._subscribers, callback)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(c for c in self._subscribers if c is not callback)

        return unsubscribe

    # -- Reports from connections ----------------------------------------------------------------------------

    def invalidate(self, member: str | None = None, address: Address | None = None) -> None:
        """Take note of a connection fault: look now, and again soon, until a connection has proved a primary.

        :param member: the member it happened on, which rests in quarantine
        :param address: its address; when it was the proved primary it must be proved anew
        """
        calm = self._raise_alarm(_ALARM_LENGTH)
        self.rest(member)
        if address is not None:
            self.gate.disprove(address)
        self._watcher.start()
        if calm:  # later faults of the same alarm are covered by its cadence
            self._watcher.wake()

    def rest(self, member: str | None) -> None:
        """Put a member that could not be connected to in quarantine, until a connection to it is made."""
        if member is not None:
            self._quarantine.rest(member, reads_failed=False)

    def distrust(self, stamp: Stamp, fault: Fault, in_hot_standby: str | None) -> bool:
        """Take note of an error with which a server answered, and return whether it stands against a replica.

        That is a conflict with its recovery, or damaged data: the read can be served elsewhere, and the replica goes
        in quarantine. A primary never does.

        :param stamp: the server
        :param fault: what the error says
        :param in_hot_standby: what the server last reported, ``on`` or ``off``; None when it is not known
        """
        snapshot = self._snapshot
        if fault not in READING_FAULTS or in_hot_standby == "off":
            return False
        member = snapshot.topology.member(stamp.member) if snapshot is not None and stamp.member is not None else None
        if member is None or member.is_leader:
            return in_hot_standby == "on"
        seconds = self._quarantine.rest(member.name, reads_failed=True)
        if seconds is not None:
            logger.warning("a read failed on %s (%s), which rests for %.1f s", member.name, fault.value, seconds)
            self._publish_failing()
        return True

    def _publish_failing(self) -> None:
        with self._publishing:
            known = self._snapshot
            if known is None:
                return
            failing = self._quarantine.failing()
            snapshot = dataclasses.replace(known, generation=known.generation + 1, failing=failing)
            _tell(self._install(snapshot), snapshot)

    def hint(self) -> None:
        """Take note that the leader may have changed: look now, and again soon. Costs some requests when it has not.

        For who learns of it from elsewhere, see :mod:`~patroni_db.push`. Starts no thread.
        """
        self._raise_alarm(_ALARM_LENGTH)
        self._watcher.wake()

    def suspect(self, member: str | None, address: Address) -> None:
        """Take note that a server may hang: ask it, and route around it while it does.

        :param member: its name; nothing is done about one that no view has named
        """
        snapshot = self._snapshot
        if member is None or snapshot is None:
            return
        leader = snapshot.topology.leader
        # Everybody's writes would stop for a primary that was slow for a moment.
        times = _LEADERS_SILENCES if leader is not None and leader.name == member else 1
        self._suspects.suspect(member, address, times=times)

    def _suspect_behind(self, url: str) -> None:
        """Suspect the member whose API at `url` failed: its server may have gone with it, and nobody been told."""
        snapshot = self._snapshot
        for member in snapshot.topology.members if snapshot is not None else ():
            address = self._book.address_of(member)
            if address is not None and self._book.api_url(member) == url:
                self.suspect(member.name, address)

    def silence_changed(self) -> None:
        """Publish who is silent now. Called by the threads that ask."""
        with self._publishing:
            known = self._snapshot
            if known is None or known.silent == self._suspects.silent:
                return
            snapshot = dataclasses.replace(known, generation=known.generation + 1, silent=self._suspects.silent)
            for name in sorted(snapshot.silent - known.silent):
                logger.warning("%s hangs: new connections avoid it", name)
            for name in sorted(known.silent - snapshot.silent):
                logger.info("%s does not hang any more", name)
            subscribers = self._install(snapshot)
            primary = snapshot.primary
            if primary is not None and primary[0].name in snapshot.silent - known.silent:
                self.gate.disprove(primary[1])
                self._raise_alarm(_SILENT_LEADER)
                self._watcher.wake()
            _tell(subscribers, snapshot)
        self.looked.notify_all()

    def is_hung(self, name: str) -> None:
        """End what still waits for a replica that has been silent for long."""
        self.live.end_reads(name)

    def has_member(self, name: str) -> bool:
        """Return whether the last view has a member of that name."""
        snapshot = self._snapshot
        return snapshot is not None and snapshot.topology.member(name) is not None

    def proved(self, member: str | None, address: Address, *, primary: bool, seeker: object = None) -> None:
        """Take note that a connection succeeded; with `primary`, that the server proved to be one.

        :param seeker: who was admitted by the gate
        """
        if member is not None:
            self._quarantine.reached(member)
        if primary:
            with self._lock:
                self._alarm_ends = -math.inf
        if primary and self.gate.prove(address, seeker):
            logger.info("%s (%s) proved to be the primary: writes go on", member or "a fallback host", address)

    # -- Sharing the load ------------------------------------------------------------------------------------

    def gives_up(self, stamp: Stamp, config: PatroniConfig) -> bool:
        """Return whether an idle connection is to be replaced, because its server has more than its share of them.

        True for a few in each ``patroni_refresh``, and never for a target that writes. Ask between two transactions.

        :param stamp: where the connection leads
        :param config: what it is for
        """
        if config.target.writes or stamp.member is None:
            return False
        purpose = purpose_of(config)
        balance = self._balances.get(purpose)
        if balance is None:
            balance = self._balances.setdefault(purpose, Balance(self.clock, self.config.refresh))
        return balance.takes(stamp.member, lambda: self._survey(config))

    def _survey(self, config: PatroniConfig) -> tuple[Mapping[str, int], Mapping[str, float]]:
        """Return the open connections for a purpose by member, and the weights of those that are to share them."""
        snapshot = self._snapshot
        if snapshot is None:
            return {}, {}
        members = first_rank(
            snapshot.topology, config.target, max_lag=config.max_lag, tags=config.tags, resting=self.resting()
        )
        reachable = [member for member in members if snapshot.address_of(member)]
        return self.live.loads(config), {member.name: member.weight or 1.0 for member in reachable}

    # -- Looking ---------------------------------------------------------------------------------------------

    def ensure_watching(self) -> float:
        """Have the cluster looked at: by the background thread, or, where none can be started, now and in place.

        :returns: the seconds after which somebody who waits for a look has to call this again; infinite while the
            thread runs
        """
        return self._watcher.keep()

    def close(self) -> None:
        """End the background thread. The discovery stays usable: the next wait starts it again."""
        with self._lock:
            push, self._push = self._push, None
            suspects, self._suspects = self._suspects, self._nobody_suspected()
        suspects.stop()
        self._watcher.stop()
        if push is not None:
            push.stop()

    _looking = False

    def look(self) -> float:
        """Ask the APIs: in turn until one gives an acceptable view, or in an alarm all at once.

        Called by the watcher alone. What goes wrong unexpectedly is the :attr:`failure`, and raised.

        :returns: seconds until the next look is due
        """
        began = self.clock()
        with self._lock:
            self._looking = True
        try:
            if self._is_alarmed() or not self._look_in_turn():
                self._look_everywhere()
            self._ensure_push()
        except Exception as exc:
            problem = f"looking failed: {type(exc).__name__}: {exc}"
            self._failure = DiscoveryError(self.config.urls[0], problem, transient=True)
            raise
        finally:
            with self._lock:
                self._looking = False
                self._looks += 1
            self.looked.notify_all()
        if self._is_alarmed():
            return max(0.0, began + _ALARM_PAUSE - self.clock())
        return self.config.refresh * self.rng.uniform(1 - _JITTER, 1 + _JITTER)

    def _ensure_push(self) -> None:
        """Have the leader key watched where that is configured; from the first view on, which may have to name it."""
        if self._push is not None or not self.config.etcd or self._snapshot is None:
            return
        scope = self._identity.scope
        if scope is None:
            if not self._has_missed_scope:
                self._has_missed_scope = True
                logger.warning("patroni_etcd needs patroni_scope: this Patroni does not tell its scope")
            return
        push = push_for(self, scope)
        if not push.start():
            return  # the next look tries again
        with self._lock:
            # Without a thread that looks a hint is of no use; and the discovery may have been closed meanwhile.
            is_wanted = self._watcher.is_running
            if is_wanted:
                self._push = push
        if not is_wanted:
            push.stop()

    def tick(self) -> bool:
        """Suspect servers from which an answer is outstanding; return whether there are connections at all.

        Called by the watcher, between looks.
        """
        for stamp in self.live.unanswered(_UNANSWERED):
            self.suspect(stamp.member, stamp.address)
        return len(self.live) > 0

    def _look_in_turn(self) -> bool:
        """Ask one API after the other until one gives a view; return False when an alarm is raised meanwhile."""
        failures: list[DiscoveryError] = []
        leader_url = self._answers.leader_url(self._snapshot.topology) if self._snapshot else None
        for url in self._endpoints(leader_url):
            flight = self._apis.start(url, functools.partial(self._look_at, is_leaders=url == leader_url))
            if flight is None:  # its last answer is still outstanding
                continue
            if not self._heeds_alarms(flight):
                return False  # the answer counts when it comes, unless a later one overtakes it
            failure = flight.result()
            if failure is None:
                failures.clear()
                break
            failures.append(failure)
        self._failure = DiscoveryError.combined(failures) if failures else None
        return True

    def _heeds_alarms(self, flight: Flight) -> bool:
        """Wait until `flight` has ended; return False when an alarm is raised before."""
        tick_at = time.monotonic() + TICK
        while not flight.done():
            if self._is_alarmed():
                return False
            if time.monotonic() >= tick_at:
                self.tick()
                tick_at = time.monotonic() + TICK
            concurrent.futures.wait((flight,), timeout=_HEEDS_ALARMS)
        return True

    def _look_at(self, url: str, *, is_leaders: bool) -> DiscoveryError | None:
        """Ask one API, and publish its view unless it is of no use, or overtaken by a later one."""
        try:
            view = self._apis.ask(url)
            self._identity.check(view, self._snapshot, self._apis.ask_node)
        except DiscoveryError as exc:
            failure = exc.with_traceback(None)  # its frames would keep us alive, and our thread
            self._suspect_behind(url)
            if self._apis.note(url, failure) and is_leaders:
                self._silence_ends = self.clock() + _SILENT_LEADER
            return failure
        self._apis.note(url, None)
        with self._publishing:
            if not self._answers.is_overtaken(view):
                self._publish(view)
        if self._snapshot is not None:
            self._identity.learn(self._snapshot, self._apis)
        return None

    def _look_everywhere(self) -> None:
        urls = self._endpoints()
        flights = [flight for url in urls if (flight := self._apis.start(url, self._take_answer)) is not None]
        concurrent.futures.wait(flights, timeout=_ALARM_PAUSE)
        # A cold start has nothing to serve meanwhile: its first look ends with an answer, or with all failures.
        while self._snapshot is None and not all(flight.done() for flight in flights):
            self.looked.enter().wait(_ALARM_PAUSE)
        with self._publishing:
            failures = self._answers.failures(urls)
        if not failures:  # what went wrong unexpectedly, where nothing else came of it
            results = [flight.result() for flight in flights if flight.done()]
            unexpected = [failure for failure in results if failure is not None]
            failures = unexpected if len(unexpected) == len(urls) else []
        self._failure = DiscoveryError.combined(failures) if failures else None

    def _take_answer(self, url: str) -> DiscoveryError | None:
        """Ask one API in an alarm, and publish what is best of all that came lately."""
        answer: View | DiscoveryError
        try:
            answer = self._apis.ask_with_status(url, self._names_itself)
        except DiscoveryError as exc:
            answer = exc.with_traceback(None)
        with self._publishing:
            self._answers.note_status(url, answer)
            try:
                if isinstance(answer, View):
                    self._identity.check(answer, self._snapshot, self._answers.status)
            except DiscoveryError as exc:
                answer = exc.with_traceback(None)
            self._answers.note(url, answer)
            failure = answer if isinstance(answer, DiscoveryError) else None
            self._apis.note(url, failure)
            if isinstance(answer, DiscoveryError):
                self._suspect_behind(url)
            else:
                self._take_view(answer)
        self.looked.notify_all()
        return failure

    def _take_view(self, view: View) -> None:
        if self._snapshot is not None and view.url == self._answers.leader_url(self._snapshot.topology):
            self._silence_ends = -math.inf
        best = self._answers.best(view)
        if best is not None:
            self._publish(best)

    def _names_itself(self, view: View) -> bool:
        return self._answers.leader_url(view.topology) == view.url

    def _is_alarmed(self) -> bool:
        snapshot = self._snapshot
        sought = self.clock() < max(self._alarm_ends, self._silence_ends) or self.gate.is_sought
        return sought or snapshot is None or snapshot.topology.leader is None

    def _raise_alarm(self, seconds: float) -> bool:
        """Look in the alarm's cadence for `seconds` from now; return whether there was no alarm before."""
        now = self.clock()
        with self._lock:
            calm = self._alarm_ends < now
            self._alarm_ends = max(self._alarm_ends, now + seconds)
        return calm

    def _endpoints(self, first: str | None = None) -> tuple[str, ...]:
        snapshot = self._snapshot
        return self._apis.in_turn(self._book.api_urls(snapshot.topology) if snapshot else (), first)

    def _publish(self, view: View) -> None:
        known, topology = self._snapshot, view.topology
        moved = known is None or known.topology.routing() != topology.routing()
        leader = topology.leader
        self._identity.believed(topology)
        self._answers.published(view)
        self._keep(topology)
        self._log_refused(topology)
        if moved and known is not None:
            self._forgive_the_started(known.topology, topology)
        generation = (known.generation if known else 0) + (moved or self._has_rested())
        silent, failing = known.silent if known else frozenset(), self._quarantine.failing()
        seen_at, timeline = self.clock(), self._identity.timeline
        snapshot = Snapshot(topology, generation, view.url, seen_at, timeline, self._book, silent, failing)
        subscribers = self._install(snapshot)
        if moved:
            former = known.topology.leader if known else None
            if known is not None and (former and former.name) != (leader and leader.name):
                self._silence_ends = -math.inf
                if former is not None:
                    self._answers.leaves(former.name)
                if self._raise_alarm(_ALARM_LENGTH):
                    self._watcher.wake()  # an answer can land after its look, when the watcher sleeps again
            _log_routing(known.topology if known else None, topology)
            self.gate.moved(snapshot.primary[1] if snapshot.primary else None)
            self.live.end_wrong(snapshot)
            _tell(subscribers, snapshot)

    def _keep(self, topology: Topology) -> None:
        """Forget APIs that are neither seeds nor members any more."""
        urls = {*self._book.api_urls(topology), *self.config.urls}
        self._answers.keep(urls)
        self._apis.keep(urls)

    def _log_refused(self, topology: Topology) -> None:
        """Log once what a member advertises and is not used for the sake of safety."""
        for member in topology.members:
            for why in member.refused:
                if (member.name, why) not in self._refused and len(self._refused) < _MANY_REFUSED:
                    self._refused.add((member.name, why))
                    logger.warning("%s is not connected to: %s", member.name, why)

    def _forgive_the_started(self, before: Topology, after: Topology) -> None:
        """Let members that Patroni says serve reads again not rest for what they did before."""
        served = {member.name for member in before.members if member.serves_reads}
        for member in after.members:
            if member.serves_reads and member.name not in served:
                self._quarantine.forgive(member.name)

    def _install(self, snapshot: Snapshot) -> tuple[Callable[[Snapshot], None], ...]:
        """Make it the one that everybody sees; return whom to tell if it moves routing."""
        with self._lock:
            self._snapshot = snapshot
            self._fresh["snapshot"] = snapshot
            return self._subscribers

    def _has_rested(self) -> bool:
        """Return whether a quarantine has ended since the last time: second choices must be looked at again."""
        resting = self.resting()
        rested, self._rested_before = self._rested_before - resting, resting
        return bool(rested)

    def _fresh_snapshot(self) -> Snapshot | None:
        with self._lock:
            return self._fresh.get("snapshot")

    def _round(self) -> float:
        """Return how many seconds a look may take, and the one before it, which may be under way."""
        return 2 * self.config.timeout * (len(self._endpoints()) + 1)

    def _no_answer_yet(self) -> DiscoveryError:
        return DiscoveryError(self.config.urls[0], "no answer yet", transient=True)


def _patroni_client(config: PatroniConfig) -> PatroniClient:
    # requests takes a quarter of a second to import: only those wait who ask an API.
    with no_fork():
        from patroni_db.client import PatroniClient  # noqa: PLC0415

    return PatroniClient(config)


def _expiry(refresh: float) -> Callable[[str, Snapshot, float], float]:
    """Return until when a view is fresh, by its health. No method: the cache must not keep its discovery alive."""

    def expiry(_key: str, snapshot: Snapshot, now: float) -> float:
        return now + (refresh * _CALM_LOOKS if snapshot.topology.leader else _ALARM_PAUSE)

    return expiry


def _tell(subscribers: tuple[Callable[[Snapshot], None], ...], snapshot: Snapshot) -> None:
    for callback in subscribers:
        try:
            callback(snapshot)
        except Exception:  # a subscriber's own bug must not end the looking
            logger.exception("a subscriber failed")


def _log_routing(before: Topology | None, after: Topology) -> None:
    old, new = before.primary if before else None, after.primary
    if before is None or (old and old.name) != (new and new.name):
        scope = after.scope or "the cluster"
        if new is None:
            logger.info("%s has no primary at the moment", scope)
        else:
            logger.info("primary of %s is %s", scope, new.name)


# -- Sharing -------------------------------------------------------------------------------------------------

_shared: weakref.WeakValueDictionary[Hashable, Discovery] = weakref.WeakValueDictionary()
_discoveries: weakref.WeakSet[Discovery] = weakref.WeakSet()
_sharing = threading.Lock()


def discovery_for(config: PatroniConfig) -> Discovery:
    """Return the discovery that all users of the same cluster settings in this process share.

    It lives as long as somebody holds it. Targets, lag, tags and timeouts of single uses do not matter.
    """
    key = config.discovery_key
    with _sharing:
        discovery = _shared.get(key)
        if discovery is None:
            discovery = _shared[key] = Discovery(config)
        return discovery


def _after_fork_in_child() -> None:
    """Threads, locks and sockets of the parent are of no use in a child: start clean."""
    global _sharing  # noqa: PLW0603 - the parent's lock may be held by a thread that does not exist here
    _sharing = threading.Lock()
    for discovery in list(_discoveries):
        discovery._start_clean()  # noqa: SLF001 - the same concept


os.register_at_fork(after_in_child=_after_fork_in_child)
