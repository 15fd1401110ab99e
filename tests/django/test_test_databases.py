"""What Django's test runner and pytest-django make of the aliases of a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connections
from django.test.utils import get_unique_databases_and_mirrors

from django_backend.router import alias_for_reads
from django_backend.routing import use_replica
from tests.django.backends import Project, entry
from tests.django.shop.models import Customer

if TYPE_CHECKING:
    from pathlib import Path

    from patroni_db.cluster import LocalCluster


def signature(**aliases: dict[str, Any]) -> dict[str, Any]:
    handler = Project(aliases).handler
    return {alias: handler[alias].creation.test_db_signature() for alias in aliases}


def test_a_database_is_known_by_its_cluster_and_name() -> None:
    a, b = ["http://127.0.0.1:9", "http://127.0.0.2:9"], ["http://127.0.0.3:9"]
    found = signature(
        default=entry(OPTIONS={"patroni_urls": a}),
        again=entry(OPTIONS={"patroni_urls": a[::-1], "patroni_target": "replica"}, HOST="ignored"),
        other=entry(OPTIONS={"patroni_urls": a}, NAME="other"),
        elsewhere=entry(OPTIONS={"patroni_urls": b}),
    )
    assert found["default"] == found["again"]
    assert len(set(found.values())) == 3


@pytest.mark.django_db(transaction=True, databases=["default", "replica"])
def test_the_mirror_shows_writes_at_once_as_it_is_the_primary() -> None:
    for number in range(20):
        Customer.objects.create(name=str(number))
        assert Customer.objects.using("replica").filter(name=str(number)).exists()
    with connections["replica"].cursor() as cursor:
        cursor.execute("SELECT current_database(), pg_is_in_recovery()")
        assert cursor.fetchone() == (connections["default"].settings_dict["NAME"], False)
    assert connections["replica"].settings_dict["NAME"].startswith("test_")


@pytest.mark.django_db(transaction=True)
def test_a_test_that_names_no_alias_reads_on_the_primary(django_assert_num_queries: Any, client: Any) -> None:
    Customer.objects.create(name="Ada")
    with django_assert_num_queries(2):
        assert Customer.objects.get().orders.count() == 0
    with use_replica(), django_assert_num_queries(1):
        assert Customer.objects.get()._state.db == "default"
    assert alias_for_reads(Customer) == "default"


@pytest.mark.django_db
def test_a_transactional_test_sees_its_own_writes_through_the_router() -> None:
    Customer.objects.create(name="Ada")
    assert Customer.objects.get().name == "Ada"


def test_one_test_database_is_made_for_both_aliases() -> None:
    databases, mirrors = get_unique_databases_and_mirrors()
    assert [list(aliases) for _, aliases in databases.values()] == [["default"]]
    assert mirrors == {"replica": "default"}


MANAGE = """
import multiprocessing, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "project"
from django.core.management import execute_from_command_line
if __name__ == "__main__":
    multiprocessing.set_start_method(os.environ["START_METHOD"])
    execute_from_command_line(sys.argv)
"""
PROJECT = """
import json, os
from django_backend.config import databases
SECRET_KEY = "of no use elsewhere"
INSTALLED_APPS = ["django_backend", "app"]
DATABASES = databases(**json.loads(os.environ["PROJECT_DATABASES"]))
DATABASE_ROUTERS = ["django_backend.router.PrimaryReplicaRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "app.urls"
STATIC_URL = "static/"
MIDDLEWARE = ["django_backend.causal_middleware.CausalMiddleware"]
"""
URLS = """
from django.http import JsonResponse
from django.urls import path
from app.models import Thing

def things(request):
    if request.method == "POST":
        Thing.objects.create(name="posted")
    return JsonResponse({"things": sorted(Thing.objects.values_list("name", flat=True))})

urlpatterns = [path("things/", things)]
"""
MODELS = """
from django.db import models
class Whole(models.Model):
    name = models.TextField()
class Thing(models.Model):
    name = models.TextField()
    whole = models.ForeignKey(Whole, models.CASCADE, null=True, related_name="things")
"""
# What a project had written for one database: none of it names an alias.
TESTS = """
import json
from urllib.request import urlopen
from django.db import transaction
from django.test import LiveServerTestCase, TestCase, TransactionTestCase
from app.models import Thing, Whole

class Both:
    def test_reads(self):
        whole = Whole.objects.create(name="x")
        with self.assertNumQueries(2):
            self.assertEqual(Whole.objects.get().name, "x")
            self.assertFalse(whole.things.exists())
        self.assertEqual(Whole.objects.get()._state.db, "default")

    def test_relations(self):
        Whole.objects.create(name="x").things.add(Thing.objects.create(name="y"))
        Whole.objects.get().things.set(Thing.objects.all())
        self.assertEqual(Thing.objects.get().whole.name, "x")

    def test_client(self):
        self.assertEqual(self.client.post("/things/").json(), {"things": ["posted"]})
        self.assertEqual(self.client.get("/things/").json(), {"things": ["posted"]})

class InTransaction(Both, TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.whole = Whole.objects.create(name="always")
        Whole.objects.filter(name="always").update(name="gone")
        Whole.objects.filter(name="gone").delete()

    def test_callbacks(self):
        found = []
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            Thing.objects.create(name="x")
            transaction.on_commit(lambda: found.append(Thing.objects.count()))
        self.assertEqual((len(callbacks), found), (1, [1]))

class Committed(Both, TransactionTestCase):
    pass

class Live(LiveServerTestCase):
    def test_it(self):
        Thing.objects.create(name="x")
        with urlopen(self.live_server_url + "/things/") as answer:
            self.assertEqual(json.load(answer), {"things": ["x"]})

class OfBothAliases(TransactionTestCase):
    databases = {"default", "replica"}

    def test_it(self):
        Thing.objects.create(name="x")
        self.assertEqual(Thing.objects.get()._state.db, "default")
        self.assertEqual(Thing.objects.using("replica").get().name, "x")
"""


@pytest.fixture
def scratch(tmp_path: Path, patroni_cluster: LocalCluster) -> Any:
    # A small project, and how to run its manage.py.
    (tmp_path / "app").mkdir()
    for name, text in {
        "manage.py": MANAGE,
        "project.py": PROJECT,
        "app/__init__.py": "",
        "app/models.py": MODELS,
        "app/tests.py": TESTS,
        "app/urls.py": URLS,
    }.items():
        (tmp_path / name).write_text(text)

    def manage(*words: str, database: str = "scratch", path: str = "", start: str = "fork", **settings: Any) -> str:
        options = {"patroni_urls": list(patroni_cluster.urls), **settings.pop("OPTIONS", {})}
        wished = {
            "NAME": database,
            "USER": patroni_cluster.user,
            "PASSWORD": patroni_cluster.password,
            "OPTIONS": options,
            **settings,
        }
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=tmp_path,
            env={
                **os.environ,
                "PROJECT_DATABASES": json.dumps(wished),
                "START_METHOD": start,
                "PATH": f"{path}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return manage


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        pytest.param((), {}, id="serial-plain"),
        pytest.param(("--parallel", "2"), {"OPTIONS": {"pool": True}}, id="parallel-pool"),
        pytest.param((), {"OPTIONS": {"pool": True}}, id="serial-pool", marks=pytest.mark.thorough),
        pytest.param(("--parallel", "2"), {}, id="parallel-plain", marks=pytest.mark.thorough),
        pytest.param(("--parallel", "2"), {"start": "spawn"}, id="parallel-spawn", marks=pytest.mark.thorough),
    ],
)
def test_djangos_own_test_runner(scratch: Any, patroni_cluster: LocalCluster, words: Any, settings: Any) -> None:
    told = scratch("test", "--noinput", *words, **settings)
    assert "Ran 9 tests" in told
    assert told.count("Creating test database for alias") == 1
    with psycopg.connect(patroni_cluster.conninfo()) as connection:
        left = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE '%scratch%'").fetchall()
    assert left == []


@pytest.mark.thorough
def test_a_test_database_that_is_kept(scratch: Any, patroni_cluster: LocalCluster) -> None:
    try:
        for _ in range(2):
            assert "Ran 9 tests" in scratch("test", "--noinput", "--keepdb", database="kept")
    finally:
        with psycopg.connect(patroni_cluster.conninfo(), autocommit=True) as connection:
            connection.execute("DROP DATABASE test_kept WITH (FORCE)")


def test_commands_that_use_the_database(scratch: Any, patroni_cluster: LocalCluster) -> None:
    with psycopg.connect(patroni_cluster.conninfo(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE commands OWNER {patroni_cluster.user}")
    try:
        scratch("migrate", "--run-syncdb", database="commands")
        assert "class AppThing" in scratch("inspectdb", database="commands")
        scratch("check", "--database", "default", "--database", "replica", database="commands")
    finally:
        with psycopg.connect(patroni_cluster.conninfo(), autocommit=True) as connection:
            connection.execute("DROP DATABASE commands WITH (FORCE)")


def test_dbshell_goes_where_the_alias_leads(
    scratch: Any, patroni_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from patroni_db.cluster.binaries import find_postgres

    monkeypatch.setenv("PGHOSTADDR", "127.0.0.250")  # where nobody listens
    binaries = str(find_postgres(None).directory)
    where = "SELECT inet_server_addr() || ' ' || pg_is_in_recovery()"
    host = patroni_cluster.node(patroni_cluster.leader or "").host
    told = scratch("dbshell", "--", "-Atc", where, database=patroni_cluster.dbname, path=binaries)
    assert told.strip() == f"{host}/32 false"
    told = scratch("dbshell", "--database=replica", "--", "-Atc", where, database=patroni_cluster.dbname, path=binaries)
    assert told.strip().endswith("true")
