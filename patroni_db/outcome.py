"""Whether a statement that failed, or the COMMIT it was, may have taken effect all the same. Pure.

A connection that was lost tells nothing of what was under way on it: the server may have done it and the answer may
be what was lost. PostgreSQL adds one case in which even an answer proves nothing: a session that is terminated
(57P01, 57P02) while it waits for a synchronous standby has committed locally already ("the transaction has already
committed locally, but might not have been replicated to the standby", its documentation of synchronous replication).
"""

from __future__ import annotations

import functools
from typing import Final

from patroni_db.faults import Fault, classify, sqlstate_of

__all__ = ["ends_transaction", "is_in_doubt"]

# transaction_resolution_unknown, statement_completion_unknown: the server, or a pooler, says so itself.
_SAID_SO: Final = frozenset({"08007", "40003"})
# No session was there to run anything: not made, not accepted, or the server still starts up.
_NEVER_RAN: Final = frozenset({"08001", "08004", "57P03"})
# An error like others while the connection lives. asyncpg says it of one that broke meanwhile ("closed in the middle of
# operation").
_NO_CONNECTION: Final = "08003"
# With these a statement ends the transaction it is in, for good.
_ENDS: Final = ("COMMIT", "END", "PREPARE TRANSACTION", "COMMIT PREPARED")


def is_in_doubt(exc: BaseException, *, lost: bool, lost_before: bool) -> bool:
    """Return whether what failed with `exc` may have taken effect.

    :param exc: an error of the driver, or of a framework around it, from COMMIT or from a statement on its own
    :param lost: whether its connection is closed or broken now
    :param lost_before: whether that was so, as far as could be read without waiting, before it was sent
    """
    state = sqlstate_of(exc)
    if state in _SAID_SO:
        return True
    if lost_before or state in _NEVER_RAN:
        return False
    if state == _NO_CONNECTION:
        return lost
    return classify(exc, closed=lost) is Fault.UNAVAILABLE


def ends_transaction(sql: str) -> bool:
    """Return whether a statement that the user wrote is a COMMIT, in one of its spellings.

    :param sql: the statement; comments in front of it are not looked through
    """
    return _begins_with_end(sql[:40])


@functools.lru_cache(maxsize=1024)  # asked before each statement of a transaction, and these are few
def _begins_with_end(beginning: str) -> bool:
    words = " ".join(beginning.upper().replace(";", " ").split())
    return any(words == end or words.startswith(f"{end} ") for end in _ENDS)
