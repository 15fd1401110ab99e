"""Users read what they have written, while replicas lag, through other threads' connections, and after a switchover."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings as django_settings
from django.db import close_old_connections, connections, transaction
from django.db.models import BooleanField, Func
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from django_backend.carriers import dump, load
from django_backend.causal import causal, consistency, current_token
from django_backend.causal_middleware import COOKIE, HEADER
from django_backend.clusters import release
from django_backend.errors import StaleReplicaError, WriteRefusedError
from django_backend.router import alias_for_reads
from django_backend.routing import use_primary, use_replica
from tests.django.shop.models import Book, Comic, Customer, Shelf
from tests.integration.faults import eventually
from tests.integration.lagging import replay_paused, resume_replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)

KINDS: dict[str, dict[str, Any]] = {
    "persistent": {"CONN_MAX_AGE": None},
    "pool": {"OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}},
}


# -- A site ---------------------------------------------------------------------------------------------------------


def names() -> list[str]:
    return sorted(Customer.objects.values_list("name", flat=True))


def add(request: HttpRequest, name: str) -> JsonResponse:
    with transaction.atomic():
        Customer.objects.create(name=name)
    return JsonResponse({"names": names()})


def show(request: HttpRequest) -> JsonResponse:
    first = names()
    with connections[alias_for_reads(Customer)].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), pg_is_in_recovery()")
        (pid, replica) = cursor.fetchone()
    return JsonResponse({"names": first, "alias": alias_for_reads(Customer), "replica": replica, "pid": pid})


async def show_async(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"names": sorted([customer.name async for customer in Customer.objects.all()])})


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(",".join(names()) for _ in range(1))


def many(request: HttpRequest) -> HttpResponse:
    seen = set()
    for _ in range(5):
        with connections[alias_for_reads(Customer)].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid(), pg_is_in_recovery()")
            seen.add(cursor.fetchone())
        names()
    return HttpResponse(repr(sorted(seen)))


urlpatterns = [
    path("add/<str:name>/", add),
    path("show/", show),
    path("show-async/", show_async),
    path("stream/", stream),
    path("many/", many),
]


@pytest.fixture(params=["persistent"])
def site(
    healthy_patroni_cluster: LocalCluster,
    request: pytest.FixtureRequest,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    django_db_blocker: Any,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[LocalCluster]:
    """The project's own aliases on the cluster, not on a test database that only its primary shows."""
    cluster = healthy_patroni_cluster
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname), autocommit=True) as admin:
        admin.execute(f"SET ROLE {cluster.user}")
        admin.execute("CREATE TABLE shop_customer (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)")
    cluster.wait_until_streaming()
    for alias in ("default", "replica"):
        entry, kind = connections.settings[alias], KINDS[request.param]
        options = {**entry["OPTIONS"], "patroni_urls": list(cluster.urls), "patroni_failover_timeout": 45}
        changes = {
            "NAME": cluster.dbname,
            "USER": cluster.user,
            "PASSWORD": cluster.password,
            **kind,
            "OPTIONS": {**options, "patroni_refresh": 0.3, **kind.get("OPTIONS", {})},
            # Without what tests on a test database have left there: both aliases are what they are in production.
            "TEST": {**entry["TEST"], "PATRONI_OPTIONS": None, "PATRONI_TEST_DATABASE": False},
        }
        for name, value in changes.items():
            monkeypatch.setitem(entry, name, value)
    _forget()
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["django_backend.causal_middleware.CausalMiddleware"]
    settings.ALLOWED_HOSTS = ["*"]
    with django_db_blocker.unblock():
        yield cluster
        _forget()
    release()
    # psycopg's pool logs connections as objects, which keep their pool, and that the discovery with its thread.
    caplog.get_records("call").clear()
    cluster.wait_for_leader()
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname), autocommit=True) as admin:
        admin.execute("DROP TABLE shop_customer")


def _forget() -> None:
    for alias in ("default", "replica"):
        connections[alias].close()
        connections[alias].close_pool()  # type: ignore[attr-defined]  # the engine's
        del connections[alias]


def elsewhere(work: Callable[[], Any]) -> Any:
    """Return what another thread, with connections of its own, makes of `work`."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as exc:  # noqa: BLE001 - raised below
            found.append(exc)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(100)
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def shown(client: Client, address: str = "/show/", **more: Any) -> Any:
    answer = client.get(address, **more).json()
    close_old_connections()  # as at the end of each request outside of tests: there readers follow preferences
    return answer


def test_users_see_what_they_have_written_while_all_replicas_lag(site: LocalCluster) -> None:
    user, stranger = Client(), Client()
    assert shown(user)["replica"]
    with replay_paused(site):
        written = user.post("/add/a/")
        assert written.json() == {"names": ["a"]}  # in the same request
        assert shown(stranger)["names"] == []
        # In the next ones, whoever serves them.
        answer = elsewhere(lambda: shown(user))
        assert (answer["names"], answer["alias"], answer["replica"]) == (["a"], "default", False)
        header = {HEADER: written.headers[HEADER]}
        assert elsewhere(lambda: shown(Client(), headers=header))["names"] == ["a"]
        assert shown(user, "/show-async/")["names"] == ["a"]
        assert user.get("/stream/").getvalue() == b"a"

        async def ask() -> Any:
            client = AsyncClient()
            client.cookies[COOKIE] = user.cookies[COOKIE].value
            return [(await client.get(where)).json() for where in ("/show-async/", "/show/")]

        assert [answer["names"] for answer in async_to_sync(ask)()] == [["a"]] * 2

        # Jobs, with what their client handed on.
        assert consistency("causal")(names)() == []
        with causal(user.cookies[COOKIE].value):
            assert names() == ["a"]
            with use_replica():
                assert names() == []
        assert consistency("causal")(names)(causal_token=user.cookies[COOKIE].value) == ["a"]
        assert consistency("eventual")(names)(causal_token=user.cookies[COOKIE].value) == []
        assert consistency("strong")(names)() == ["a"]
        assert use_primary()(names)() == ["a"]
        with causal(user.cookies[COOKIE].value):
            # What is explicit wins, and what was promised to see more must not see less.
            assert list(Customer.objects.using("replica")) == []
            replica: Any = connections["replica"]
            replica._promised = load(user.cookies[COOKIE].value, [django_settings.SECRET_KEY])["default"]
            with pytest.raises(StaleReplicaError):
                list(Customer.objects.using("replica"))

        resume_replay(site)
        eventually(lambda: shown(stranger)["names"] == ["a"], "the replicas to catch up")
        eventually(lambda: shown(user)["replica"], "the user to read from a replica again")
        assert elsewhere(lambda: shown(user))["replica"]
    with pytest.raises(WriteRefusedError):
        Customer.objects.using("replica").create(name="x")


def test_a_token_outlives_a_switchover_and_a_lost_one_is_dropped(site: LocalCluster) -> None:
    user, loser = Client(), Client()
    user.post("/add/a/")
    (token,) = load(user.cookies[COOKIE].value, [django_settings.SECRET_KEY]).values()
    loser.cookies[COOKIE] = dump({"default": dataclasses.replace(token, lsn=2**48)}, django_settings.SECRET_KEY)
    assert shown(loser)["alias"] == "default"
    assert loser.cookies[COOKIE].value
    before = current_token("default")
    site.switchover()
    assert elsewhere(lambda: shown(user))["names"] == ["a"]
    assert shown(user)["names"] == ["a"]
    assert user.post("/add/b/").json()["names"] == ["a", "b"]
    assert elsewhere(lambda: shown(user))["names"] == ["a", "b"]
    with causal(before):
        assert "a" in names()
    # A failover has lost what this one stands for: that is known as soon as Patroni has the history.
    eventually(lambda: shown(loser)["replica"], "the lost token to be recognised")
    assert not loser.cookies[COOKIE].value
    eventually(lambda: shown(user)["replica"], "the user to read from a replica again")
    assert shown(user)["names"] == ["a", "b"]


@pytest.mark.parametrize("site", KINDS, indirect=True)
def test_a_request_stays_with_one_replica(site: LocalCluster) -> None:
    client = Client()
    for _ in range(2):
        # On a busy machine a replica is late for longer than patroni_causal_wait, and the primary answers.
        eventually(lambda: all(shown(client)["replica"] for _ in range(5)), "the replicas to catch up")
        seen = client.get("/many/").content.decode()
        assert seen.count("True") == 1, seen
        client.post("/add/x/")

    async def ask() -> str:
        return (await AsyncClient().get("/many/")).content.decode()

    seen = async_to_sync(ask)()
    assert seen.count("True") == 1
    assert async_to_sync(sync_to_async(current_token))() is not None


class IsReplica(Func):
    function = "pg_is_in_recovery"
    arity = 0
    output_field = BooleanField()


@pytest.fixture
def shelves(site: LocalCluster) -> Iterator[list[Shelf]]:
    """Two shelves, three books on the second, read from a replica."""
    models = (Shelf, Book, Comic)
    with connections["default"].schema_editor() as editor:
        for model in models:
            editor.create_model(model)
    try:
        second = [Shelf.objects.create(name=name) for name in ("first", "second")][1]
        Book.objects.bulk_create(Book(title=str(number), shelf=second) for number in range(3))
        eventually(lambda: _tables() and Book.objects.using("replica").count() == 3, "the replicas to catch up")
        yield read(Shelf)
    finally:
        with connections["default"].schema_editor() as editor:
            for model in reversed(models):
                editor.delete_model(model)


def _tables() -> bool:
    return Book._meta.db_table in connections["replica"].introspection.table_names()


def read(model: Any) -> list[Any]:
    """Return all objects of a model, read from a replica."""
    found = list(model.objects.annotate(replica=IsReplica()).order_by("pk"))
    assert {(thing.replica, thing._state.db) for thing in found} == {(True, "default")}
    return found


def test_objects_read_from_a_replica_are_of_the_database_that_is_written(shelves: list[Shelf]) -> None:
    first, second = shelves
    first.books.add(read(Book)[0])
    first.books.add(read(Book)[1], bulk=False)
    with transaction.atomic():
        second.books.set(Book.objects.all())
    read(Book)[0].shown_on.add(read(Shelf)[1])
    read(Book)[0].shown_on.set(Shelf.objects.all())
    Book(title="new", shelf=read(Shelf)[0]).save()
    Book.objects.bulk_update(read(Book), ["title"])
    saved = read(Book)[1]
    saved.title = "saved"
    saved.save(using=saved._state.db)
    read(Book)[2].delete()
    with use_primary():
        assert sorted(second.books.values_list("title", flat=True)) == ["0", "saved"]
        assert Book.objects.get(title="0").shown_on.count() == 2
        assert first.books.get().title == "new"
