"""What can go wrong, as one tree.

::

    PatroniError
    ├── ConfigError (also ValueError)    a setting is wrong; raised before anything is connected
    ├── DiscoveryError                   no usable view of the cluster: which URL, and why
    ├── NoServerError                    the deadline passed without an eligible server
    │   ├── NoPrimaryError
    │   └── NoReplicaError
    ├── CausalTokenError (also ValueError)  a text is no causal token, or not signed with the key
    ├── KeyReusedError (also ValueError)  the key of a transaction was taken by other work
    ├── CommitOutcomeUnknown             a connection was lost during COMMIT: it may have happened, or not
    └── ClusterError                     a LocalCluster did not start, or a fault could not be made

Database errors are never in this tree: an error of the driver stays the driver's own. At a framework's
boundary, :class:`NoServerError` and :class:`DiscoveryError` become the framework's ``OperationalError``
with the original chained as ``__cause__``, and :class:`CommitOutcomeUnknown` is a subclass of both: of this one and
of the framework's ``OperationalError``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patroni_db.escaping import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CausalTokenError",
    "ClusterError",
    "CommitOutcomeUnknown",
    "ConfigError",
    "DiscoveryError",
    "KeyReusedError",
    "NoPrimaryError",
    "NoReplicaError",
    "NoServerError",
    "PatroniError",
]


class PatroniError(Exception):
    """Base of every error this library raises itself.

    Its text is one line, fit for a log and a terminal, whoever wrote the names and messages in it.
    """

    def __str__(self) -> str:
        return plain(super().__str__())


class ConfigError(PatroniError, ValueError):
    """A setting is unknown, malformed or contradicts another.

    :param setting: the setting's full name, for example ``patroni_max_lag``
    :param problem: what is wrong with it, in a few words
    """

    def __init__(self, setting: str, problem: str) -> None:
        problem = plain(problem)
        super().__init__(setting, problem)
        self.setting = setting
        self.problem = problem

    def __str__(self) -> str:
        return plain(f"{self.setting}: {self.problem}")


class DiscoveryError(PatroniError):
    """An endpoint gave no usable view of the cluster, or none did.

    :param url: the URL asked; with several failures, the last one
    :param reason: why its answer could not be used
    :param transient: whether asking again may help: nobody answered, or with a server error. A wrong
        certificate, a redirect or a server that is not Patroni will not mend itself
    :param failures: when every endpoint was asked in vain, one error for each
    """

    def __init__(
        self, url: str, reason: str, *, transient: bool = False, failures: Sequence[DiscoveryError] = ()
    ) -> None:
        reason = plain(reason)
        super().__init__(url, reason)
        self.url = url
        self.reason = reason
        self.transient = transient
        self.failures = tuple(failures)

    @classmethod
    def combined(cls, failures: Sequence[DiscoveryError]) -> DiscoveryError:
        """Return the one error that tells of all `failures` (at least one)."""
        if len(failures) == 1:
            return failures[0]
        last = failures[-1]
        return cls(last.url, last.reason, transient=any(f.transient for f in failures), failures=failures)

    def __str__(self) -> str:
        if self.failures:
            return "no Patroni API gave a usable answer: " + "; ".join(map(str, self.failures))
        return plain(f"{self.url}: {self.reason}")


class NoServerError(PatroniError):
    """No server eligible for the target was reached before the deadline.

    :param message: what was sought, for how long, and what stood in the way
    :param reason: what stood in the way, alone
    """

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = message if reason is None else reason


class NoPrimaryError(NoServerError):
    """No primary was reached before the deadline."""


class NoReplicaError(NoServerError):
    """No replica was reached before the deadline."""


class CausalTokenError(PatroniError, ValueError):
    """A text is no causal token, or was not signed with the key it was checked with."""


class KeyReusedError(PatroniError, ValueError):
    """The key of a transaction was taken by one with another fingerprint: nothing was run, nothing was committed.

    :param key: the caller's
    """

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"the key {self.key!r} was taken by other work: its fingerprint is another one"


class CommitOutcomeUnknown(PatroniError):  # noqa: N818 - the standard's name for it, not an error in itself
    """A connection was lost while COMMIT, or a statement outside of a transaction, was under way on it.

    It may have taken effect. What is known not to have is never reported so. The driver's own error is the
    ``__cause__``. Never run the work again blindly: look whether it is there, or have a commit marker decide.
    """

    sqlstate = "08007"  # transaction_resolution_unknown


class ClusterError(PatroniError):
    """A local cluster could not be started or a fault could not be made; the message holds the log's tail."""

    def __str__(self) -> str:
        return "\n".join(map(plain, Exception.__str__(self).split("\n")))
