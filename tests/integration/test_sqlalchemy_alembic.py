"""Alembic migrations through the dialect, the plugin and an asynchronous engine."""

from __future__ import annotations

import textwrap
import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest
from alembic import command
from alembic.config import Config

from tests.sqlalchemy.clients import url_of

if TYPE_CHECKING:
    from pathlib import Path

    from patroni_db.cluster import LocalCluster

_ENV = """
    from alembic import context
    from sqlalchemy import engine_from_config, pool

    target_metadata = None
    engine = engine_from_config(
        context.config.get_section(context.config.config_ini_section), prefix="sqlalchemy.", poolclass=pool.NullPool
    )
    with engine.connect() as connection:
        context.configure(connection=connection, version_table=context.config.attributes["table"] + "_version")
        with context.begin_transaction():
            context.run_migrations()
"""

_ASYNC_ENV = """
    import asyncio
    from alembic import context
    from sqlalchemy import pool
    from sqlalchemy.ext.asyncio import async_engine_from_config

    def migrate(connection):
        context.configure(connection=connection, version_table=context.config.attributes["table"] + "_version")
        with context.begin_transaction():
            context.run_migrations()

    async def main():
        section = context.config.get_section(context.config.config_ini_section)
        engine = async_engine_from_config(section, prefix="sqlalchemy.", poolclass=pool.NullPool)
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
        await engine.dispose()

    asyncio.run(main())
"""

_REVISION = """
    import sqlalchemy as sa
    from alembic import context, op

    revision = "1"
    down_revision = None

    def upgrade():
        table = context.config.attributes["table"]
        op.create_table(table, sa.Column("id", sa.Integer, primary_key=True), sa.Column("data", sa.JSON))

    def downgrade():
        op.drop_table(context.config.attributes["table"])
"""


@pytest.mark.parametrize(("driver", "env"), [("patroni", _ENV), ("psycopg2", _ENV), ("patroni", _ASYNC_ENV)])
def test_upgrade_and_downgrade(patroni_cluster: LocalCluster, tmp_path: Path, driver: str, env: str) -> None:
    table = f"migrated_{uuid.uuid4().hex}"
    (tmp_path / "env.py").write_text(textwrap.dedent(env))
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "first.py").write_text(textwrap.dedent(_REVISION))
    config = Config()
    config.attributes["table"] = table
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", url_of(patroni_cluster, driver).replace("%", "%%"))

    def tables() -> set[str]:
        conninfo = patroni_cluster.conninfo(dbname=patroni_cluster.dbname, user=patroni_cluster.user)
        with psycopg.connect(conninfo) as connection:
            cursor = connection.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE %s", [f"{table}%"])
            return {name for (name,) in cursor}

    command.upgrade(config, "head")
    assert tables() == {table, f"{table}_version"}
    command.downgrade(config, "base")
    assert tables() == {f"{table}_version"}
    with psycopg.connect(patroni_cluster.conninfo(dbname=patroni_cluster.dbname)) as connection:
        connection.execute(f"DROP TABLE {table}_version")
