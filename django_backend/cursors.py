"""Cursors that execute through faults: what Django calls a cursor wrapper, made by ``DatabaseWrapper.make_cursor``.

Outside of a project's own execute wrappers, which run again with the statement.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from django.db.backends.utils import CursorWrapper

if TYPE_CHECKING:
    from django_backend.mixin import PatroniMixin

__all__ = ["PatroniCursor", "cursor_class"]


class PatroniCursor(CursorWrapper):
    """Django's wrapper of a driver's cursor."""

    db: PatroniMixin

    def execute(self, sql: Any, params: Any = None) -> Any:
        """Execute a statement."""
        return self._through_faults(sql, params, many=False)

    def executemany(self, sql: Any, param_list: Any) -> Any:
        """Execute a statement once for each of several parameters."""
        return self._through_faults(sql, param_list, many=True)

    def _through_faults(self, sql: Any, params: Any, *, many: bool) -> Any:
        run = super().executemany if many else super().execute
        return self.db.execute_through_faults(run, sql, params, self, many=many)


@functools.cache
def cursor_class(base: Any) -> Any:
    """Return what to use in place of `base`, the cursor class of a backend: it comes first, as when it logs queries."""
    if issubclass(PatroniCursor, base):
        return PatroniCursor
    return type(base.__name__, (base, PatroniCursor), {"__module__": __name__})
