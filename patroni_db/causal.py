"""Causal tokens: what a user has written, as a place in the cluster's history, and who can show it to him. Pure.

A token is taken on the primary after a commit. A server shows that commit when its own history leads through the
token's place. Three cases are told apart: it does (:attr:`Standing.REACHED`), it does not or that is not known
(:attr:`Standing.BEHIND`: ask the primary), and nobody ever will (:attr:`Standing.LOST`: a failover lost the commit,
or the cluster is another one).
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final, Self

from patroni_db.errors import CausalTokenError

if TYPE_CHECKING:
    from patroni_db.lineage import Lineage

__all__ = ["DEFAULT_CLUSTER", "CausalToken", "Standing", "standing"]

# The name of the only cluster that most applications have; with Django its primary's alias.
DEFAULT_CLUSTER: Final = "default"

# Version, system identifier, timeline and LSN as PostgreSQL writes them: short, and fit for cookies, headers and URLs.
_TEXT: Final = re.compile(r"1\.(\d{1,20})\.([0-9A-F]{1,8})\.([0-9A-F]{1,16})", re.ASCII)
_SALT: Final = b"patroni_db.causal.CausalToken:"
_LONGEST: Final = 200


class Standing(enum.Enum):
    """How a server, or the cluster, stands to a token."""

    REACHED = "reached"
    BEHIND = "behind"
    LOST = "lost"


@dataclasses.dataclass(frozen=True, slots=True)
class CausalToken:
    """A place in a cluster's history, at or after a commit.

    Its text is opaque: hand it on as it is. :meth:`signed` before it leaves for somebody who could forge it.

    :param system_identifier: the cluster's identity, chosen by initdb
    :param timeline: the timeline that the commit is on
    :param lsn: the log sequence number, in bytes
    """

    system_identifier: str
    timeline: int
    lsn: int

    def later(self, other: CausalToken | None) -> CausalToken:
        """Return the later one of this token and an `other` that was known before.

        What is on a later timeline was written later. Of two clusters' tokens this one is returned: the other belongs
        to a cluster that has been replaced.
        """
        if other is None or other.system_identifier != self.system_identifier:
            return self
        return max(self, other, key=lambda token: (token.timeline, token.lsn))

    def __str__(self) -> str:
        return f"1.{self.system_identifier}.{self.timeline:X}.{self.lsn:X}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the token that `text` stands for.

        :raises CausalTokenError: it is none
        """
        match = _TEXT.fullmatch(text) if len(text) <= _LONGEST else None
        if match is None:
            problem = f"{text[:_LONGEST]!r} is no causal token"
            raise CausalTokenError(problem)
        return cls(match[1], int(match[2], 16), int(match[3], 16))

    def signed(self, key: str | bytes, cluster: str = DEFAULT_CLUSTER) -> str:
        """Return its text with a signature (HMAC-SHA-256) that :meth:`verified` checks.

        :param key: a secret; whoever has it can make tokens
        :param cluster: the name that the application knows the cluster by: it is signed too, though not in the text
        """
        text = str(self)
        return f"{text}.{_signature(text, key, cluster)}"

    @classmethod
    def verified(cls, text: str, key: str | bytes, cluster: str = DEFAULT_CLUSTER) -> Self:
        """Return the token of a :meth:`signed` text.

        :raises CausalTokenError: it is none, or was not signed with `key` for this `cluster`
        """
        bare, dot, signature = text.rpartition(".") if len(text) <= _LONGEST else (text, "", "")
        token = cls.parse(bare if dot else text)  # before anything is computed: most of what is none is found here
        if not hmac.compare_digest(signature.encode(errors="replace"), _signature(bare, key, cluster).encode()):
            problem = f"{text!r} is no causal token signed with this key"
            raise CausalTokenError(problem)
        return token


def standing(token: CausalToken, lineage: Lineage | None, *, timeline: int | None, reached: int | None) -> Standing:
    """Return whether a server shows what `token` stands for.

    :param token: the place to have reached
    :param lineage: the cluster's history; None while it is not known
    :param timeline: a timeline that the server is on or has passed; None while unknown
    :param reached: the LSN (bytes) up to which it shows everything; None while unknown
    """
    held: bool | None = None
    if lineage is not None:
        if lineage.system_identifier != token.system_identifier:
            return Standing.LOST
        held = lineage.holds(token.timeline, token.lsn)
        if held is False:
            return Standing.LOST
    if timeline is None or reached is None or timeline < token.timeline or reached < token.lsn:
        return Standing.BEHIND
    if timeline == token.timeline:  # it has that very log
        return Standing.REACHED
    # A later timeline has it if it branched off after the token's place; of one after the known history who can tell?
    known = lineage is not None and timeline <= lineage.timeline
    return Standing.REACHED if held and known else Standing.BEHIND


def _signature(text: str, key: str | bytes, cluster: str) -> str:
    secret = key.encode() if isinstance(key, str) else key
    # No token's text has a colon, so what is signed for one cluster is signed for no other.
    signed = text if cluster == DEFAULT_CLUSTER else f"{cluster}:{text}"
    digest = hmac.digest(hashlib.sha256(_SALT + secret).digest(), signed.encode(errors="replace"), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
