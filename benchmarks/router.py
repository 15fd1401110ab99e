"""What choosing the server costs per query: ours, beside the least there could be. Needs no cluster.

For Django that is a router which only names an alias, for SQLAlchemy the hook of its own ``Session``.

``python -m benchmarks.router`` prints microseconds, the best of several rounds: what the machine does beside is no
part of it.
"""

from __future__ import annotations

import sys
import timeit
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import django
from django.conf import settings

if __name__ == "__main__" and not __package__:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from django_backend.config import databases

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS: Final = 2_000
ROUNDS: Final = 300


class Trivial:
    """The least a router can do."""

    def db_for_read(self, _model: Any, **_hints: Any) -> str:
        """Return the replicas' alias."""
        return "replica"


def cost(call: Callable[[], object]) -> float:
    """Return the microseconds of one call."""
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def show(name: str, call: Callable[[], object]) -> None:
    """Print the cost of one call."""
    print(f"{cost(call):6.2f} us  {name}")


def sqlalchemy_session() -> None:
    """Print what SQLAlchemy's sessions take to say where a statement goes."""
    # Only after Django's: neither framework's figures depend on the other's imports.
    from sqlalchemy import Integer, create_engine, inspect, select  # noqa: PLC0415
    from sqlalchemy.orm import DeclarativeBase, Session, mapped_column  # noqa: PLC0415

    from sqlalchemy_dialect import RoutingSession, writer_and_reader  # noqa: PLC0415

    class Base(DeclarativeBase):
        pass

    class Account(Base):
        __tablename__ = "account"
        id = mapped_column(Integer, primary_key=True)

    # In a transaction there is a connection: any engine has one, and the session asks it nothing.
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    engines = writer_and_reader("postgresql+patroni://app@/app?patroni_urls=http://127.0.0.1:9")
    mapper, statement = inspect(Account), select(Account).where(Account.id == 1)
    told: dict[str, Any] = {"patroni_options": {}}  # what execute() hands on
    beginning = RoutingSession(engines.writer, reader=engines.reader)
    with Session(engine) as stock, RoutingSession(engine) as writing, RoutingSession(engine, read_only=True) as reading:
        show("Session.get_bind", lambda: stock.get_bind(mapper, clause=statement))
        show(
            "RoutingSession.get_bind, a transaction begins",
            lambda: beginning.get_bind(mapper, clause=statement, **told),
        )
        for session in (stock, writing, reading):
            session.execute(statement)
        show("Session.get_bind in a transaction", lambda: stock.get_bind(mapper, clause=statement))
        show(
            "RoutingSession.get_bind in one that may write", lambda: writing.get_bind(mapper, clause=statement, **told)
        )
        show(
            "RoutingSession.get_bind in one that only reads", lambda: reading.get_bind(mapper, clause=statement, **told)
        )
    engine.dispose()


def main() -> None:
    """Print the figures."""
    settings.configure(
        SECRET_KEY="of no use elsewhere",  # noqa: S106
        DATABASES=databases(NAME="app", OPTIONS={"patroni_urls": ["http://127.0.0.1:9"]}),
        INSTALLED_APPS=["django.contrib.contenttypes", "django_backend"],
    )
    django.setup()
    # With the settings only.
    from django.contrib.contenttypes.models import ContentType  # noqa: PLC0415
    from django.db import connections  # noqa: PLC0415
    from django.db.backends.postgresql.operations import DatabaseOperations  # noqa: PLC0415

    from django_backend.causal import consistency  # noqa: PLC0415
    from django_backend.read_rules import goes_to_replica  # noqa: PLC0415
    from django_backend.router import PrimaryReplicaRouter  # noqa: PLC0415
    from django_backend.routing import use_primary  # noqa: PLC0415
    from patroni_db.statements import kind_of  # noqa: PLC0415

    ours, trivial = PrimaryReplicaRouter(), Trivial()
    primary: Any = connections["default"]
    stock = DatabaseOperations(primary)
    ours.db_for_read(ContentType)
    instance = ContentType()
    instance._state.db = "default"  # noqa: SLF001 - as Django's own loading does
    statement = str(ContentType.objects.filter(pk__in=range(20)).query)
    lines = {
        "a router that names an alias": lambda: trivial.db_for_read(ContentType),
        "db_for_read": lambda: ours.db_for_read(ContentType),
        "db_for_read of a related object": lambda: ours.db_for_read(ContentType, instance=instance),
        "ops.compiler(), stock": lambda: stock.compiler("SQLCompiler"),
        "ops.compiler()": lambda: primary.ops.compiler("SQLCompiler"),
        "where a read is executed": lambda: goes_to_replica(primary, "replica"),
        "looking up the wrapper of an alias, as Django does for each query": lambda: connections["replica"],
        "db_for_write": lambda: ours.db_for_write(ContentType),
        f"kind_of() a query of {len(statement)} characters": lambda: kind_of(statement),
    }
    for name, call in lines.items():
        show(name, call)
    with consistency("causal"):
        show("where a read is executed in a request, nothing written", lambda: goes_to_replica(primary, "replica"))
        ours.db_for_write(ContentType)
        show("where a read is executed in a request after a write", lambda: goes_to_replica(primary, "replica"))
    with use_primary():
        show("where a read is executed within use_primary()", lambda: goes_to_replica(primary, "replica"))
    sqlalchemy_session()


if __name__ == "__main__":
    main()
