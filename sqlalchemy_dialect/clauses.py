"""What an executable of SQLAlchemy may do to the database. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import CompoundSelect, Select, TextClause, TextualSelect
from sqlalchemy.orm import FromStatement
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.functions import FunctionElement, next_value
from sqlalchemy.sql.selectable import ForUpdateArg

from patroni_db.sql_effect import Effect, effect_of_function, effect_of_sql

if TYPE_CHECKING:
    from sqlalchemy.sql.base import Executable

__all__ = ["effect_of"]

_QUERIES: Final = (Select, CompoundSelect, TextualSelect, FromStatement, FunctionElement)


def effect_of(clause: Executable) -> Effect:
    """Return what `clause` may do: of its parts, in whatever depth, the worst counts."""
    if isinstance(clause, TextClause):
        return effect_of_sql(clause.text)
    if not isinstance(clause, _QUERIES):
        return Effect.WRITES if getattr(clause, "is_dml", False) else Effect.MAY_WRITE
    return max((_effect_of_part(part) for part in visitors.iterate(clause)), default=Effect.READS)


def _effect_of_part(part: Any) -> Effect:
    if getattr(part, "is_dml", False) or isinstance(part, (ForUpdateArg, next_value)):
        return Effect.WRITES
    if isinstance(part, FunctionElement):
        return effect_of_function(getattr(part, "name", ""))
    if isinstance(part, (TextualSelect, FromStatement)) and isinstance(part.element, TextClause):
        return effect_of_sql(part.element.text)
    if isinstance(part, TextClause):  # a piece of a query
        return effect_of_sql(f"SELECT {part.text}")
    if isinstance(part, ColumnClause) and part.is_literal:
        return effect_of_sql(f"SELECT {part.name}")
    return Effect.READS
