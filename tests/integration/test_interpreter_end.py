"""Programs that use the database when the interpreter ends: from Python 3.12 on no thread can start then."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from patroni_db.cluster import LocalCluster

PROGRAM = textwrap.dedent("""
    import atexit, sys, threading, time
    what, moment, apis, user, password, dbname = sys.argv[1:]

    if what.startswith("django"):
        import django
        from django.conf import settings
        from django_backend.config import databases
        options = {"patroni_urls": apis, "patroni_failover_timeout": 10, "pool": what == "django-pool"}
        settings.configure(DATABASES=databases(NAME=dbname, USER=user, PASSWORD=password, OPTIONS=options))
        django.setup()
        from django.db import connections
        def ask():
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT 40 + 2")
                return cursor.fetchone()[0]
    else:
        from sqlalchemy import create_engine, pool, text
        url = f"postgresql+patroni://{user}:{password}@/{dbname}?patroni_urls={apis}&patroni_failover_timeout=10"
        engine = create_engine(url, poolclass=pool.NullPool)
        def ask():
            with engine.connect() as connection:
                return connection.scalar(text("SELECT 40 + 2"))

    def last():
        print("answer:", ask(), flush=True)

    def outlive():
        threading.main_thread().join()
        time.sleep(0.2)
        last()

    if "used" in moment:
        ask()
        if what.startswith("django"):
            connections.close_all()
    if "atexit" in moment:
        atexit.register(last)
    else:
        threading.Thread(target=outlive).start()
""")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="threads can be started until the very end")
@pytest.mark.parametrize(
    ("what", "moment"),
    [
        ("django", "atexit"),
        ("sqlalchemy", "thread"),
        pytest.param("django", "atexit, used before", marks=pytest.mark.thorough),
        pytest.param("django", "thread", marks=pytest.mark.thorough),
        pytest.param("django-pool", "atexit, used before", marks=pytest.mark.thorough),
        pytest.param("sqlalchemy", "atexit", marks=pytest.mark.thorough),
        pytest.param("sqlalchemy", "thread, used before", marks=pytest.mark.thorough),
    ],
)
def test_the_database_can_be_used_to_the_very_end(patroni_cluster: LocalCluster, what: str, moment: str) -> None:
    cluster = patroni_cluster
    arguments = [what, moment, ",".join(cluster.urls), cluster.user, cluster.password, cluster.dbname]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "answer: 42\n", done.stderr
