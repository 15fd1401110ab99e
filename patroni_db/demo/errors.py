"""Why a demo can end without figures."""

from __future__ import annotations

from patroni_db.errors import ClusterError

__all__ = ["DemoError"]


class DemoError(ClusterError):
    """The demo could not be carried out: this says nothing about writes, one way or the other."""
