"""Flask-SQLAlchemy with sessions that route, as the documentation wires it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqlalchemy_dialect import CausalWSGIMiddleware, RoutingSession, use_replica
from tests.sqlalchemy.clients import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

    from patroni_db.cluster import LocalCluster

STANDS_BY = text("SELECT pg_is_in_recovery()")


class Session(RoutingSession):
    def __init__(self, db: Any, bind: Engine | None = None, **options: Any) -> None:
        super().__init__(bind or db.engine, reader=db.engines["reader"], **options)


class Base(DeclarativeBase):
    pass


@pytest.fixture
def client(healthy_patroni_cluster: LocalCluster) -> Iterator[FlaskClient]:
    url = url_of(healthy_patroni_cluster, "patroni")
    app = Flask(__name__)
    app.config |= {
        "SQLALCHEMY_DATABASE_URI": url,
        "SQLALCHEMY_BINDS": {"reader": f"{url}&patroni_target=replica_preferred"},
        "PROPAGATE_EXCEPTIONS": True,
    }
    db = SQLAlchemy(app, model_class=Base, session_options={"class_": Session})
    app.wsgi_app = CausalWSGIMiddleware(app.wsgi_app, key="0123456789abcdef0123456789abcdef")  # type: ignore[method-assign]

    class Order(db.Model):  # type: ignore[name-defined, misc]  # made at run time
        __tablename__ = f"orders_{uuid.uuid4().hex}"
        id: Mapped[int] = mapped_column(primary_key=True)

    @app.post("/orders")
    def create() -> dict[str, Any]:
        db.session.add(Order())
        stands_by = db.session.scalar(STANDS_BY)
        db.session.commit()
        return {"stands_by": stands_by}

    @app.get("/orders")
    @use_replica()
    def orders() -> dict[str, Any]:
        return {
            "stands_by": db.session.scalar(STANDS_BY),
            "orders": db.session.scalar(select(func.count()).select_from(Order)),
        }

    with app.app_context():
        db.create_all(bind_key=None)
    healthy_patroni_cluster.wait_until_streaming()
    yield app.test_client()
    with app.app_context():
        db.session.remove()
        db.drop_all(bind_key=None)
        for engine in db.engines.values():
            engine.dispose()


def test_users_read_from_replicas_what_they_have_written(client: FlaskClient) -> None:
    read_from = set()
    for number in range(1, 31):
        written = client.post("/orders")
        assert written.json == {"stands_by": False}
        headers = {"Patroni-Causal-Token": written.headers["Patroni-Causal-Token"]}
        read = client.get("/orders", headers=headers).json
        assert read is not None
        assert read["orders"] == number
        read_from.add(read["stands_by"])
    assert True in read_from
