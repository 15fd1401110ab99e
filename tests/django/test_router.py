from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group
from django.core.cache.backends.db import DatabaseCache
from django.core.management import call_command
from django.db import connections, migrations, models, router, transaction
from django.db.migrations.state import ProjectState
from django.test.utils import isolate_apps

from django_backend.router import PrimaryReplicaRouter
from tests.django.backends import executed_on
from tests.django.shop.models import Customer, Order

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "replica"]),
    pytest.mark.usefixtures("routed"),
]


def readers(model: Any, **hints: Any) -> tuple[str, str | None]:
    """Return the alias that the router names for a read, and the one that may be read through."""
    alias = router.db_for_read(model, **hints)
    return str(alias), getattr(alias, "reader", None)


REPLICA = ("default", "replica")
PRIMARY = ("default", None)


def test_reads_go_to_the_replicas_and_writes_to_the_primary() -> None:
    with executed_on() as aliases:
        Customer.objects.create(name="Ada")
        read = Customer.objects.get()
        assert (read.name, read._state.db) == ("Ada", "default")
        read.name = "Grace"
        read.save()
        assert Customer.objects.using("default").get().name == "Grace"
        assert Customer.objects.using("replica").get()._state.db == "replica"
    assert aliases == ["default", "replica", "default", "default", "replica"]


def test_all_reads_of_a_transaction_go_to_the_primary() -> None:
    with executed_on() as aliases, transaction.atomic():
        Customer.objects.create(name="Ada")
        # ForeignKey.validate looks for the customer where writes go.
        Order(customer=Customer.objects.get(), note="n").full_clean()
    assert set(aliases) == {"default"}
    with executed_on() as aliases:
        Order(customer=Customer.objects.get(), note="n").full_clean()
    assert set(aliases) == {"replica"}


def test_objects_of_both_aliases_may_be_related() -> None:
    Customer.objects.create(name="Ada")
    order = Order(customer=Customer.objects.using("replica").get(), note="n")
    order.save()
    assert order.customer._state.db == "replica"
    with executed_on() as aliases:
        assert Order.objects.get().customer.name == "Ada"
        assert Customer.objects.using("replica").get().orders.get()._state.db == "default"
    assert aliases == ["replica"] * 4
    with executed_on() as aliases:
        assert Customer.objects.get().orders.create(note="second")._state.db == "default"
    assert aliases == ["replica", "default"]


def test_migrations_are_for_the_primary() -> None:
    assert router.allow_migrate("default", "shop") is True
    assert router.allow_migrate("replica", "shop") is False
    call_command("migrate", database="replica", verbosity=0)


def test_a_migration_that_is_not_atomic_reads_from_the_primary_too() -> None:
    def fill(old: Any, _editor: Any) -> None:
        old.get_model("shop", "Customer").objects.count()

    class Fill(migrations.Migration):
        atomic = False
        operations = (migrations.RunPython(fill),)

    state = ProjectState.from_apps(apps)
    with executed_on() as aliases, connections["default"].schema_editor(atomic=False) as editor:
        Fill("fill", "shop").apply(state, editor)
    assert aliases == ["default"]


class _Table:
    """As Django's database cache describes its table to routers."""

    app_label = "django_cache"
    model_name = "cacheentry"
    verbose_name = "cache entry"
    verbose_name_plural = "cache entries"
    object_name = "CacheEntry"
    abstract = False
    managed = True
    proxy = False
    swapped = False


STAND_INS: dict[str, Any] = {
    "a cache's table": SimpleNamespace(_meta=_Table()),
    "an object": SimpleNamespace(),
    "nothing": None,
    "a label": "shop.Customer",
}


@pytest.mark.parametrize("stand_in", STAND_INS.values(), ids=STAND_INS)
def test_what_is_no_model_is_routed_like_one(stand_in: Any) -> None:
    assert readers(stand_in) == REPLICA
    assert router.db_for_write(stand_in) == "default"


@pytest.mark.parametrize("hint", [None, SimpleNamespace(), "text"], ids=["none", "object", "text"])
def test_a_hint_that_is_no_object_of_a_database_says_nothing(hint: Any) -> None:
    mine = PrimaryReplicaRouter()
    assert mine.db_for_read(Customer, instance=hint) == "default"
    assert mine.db_for_write(Customer, instance=hint, model_name="customer") == "default"
    assert mine.allow_relation(hint, Customer()) is None


def test_proxies_unmanaged_models_and_intermediate_tables_are_routed_like_their_kind() -> None:
    def kind(name: str, base: type, **meta: Any) -> Any:
        inner = type("Meta", (), {"app_label": "shop", **meta})
        return type(name, (base,), {"__module__": __name__, "Meta": inner})

    through = Group.permissions.through
    with isolate_apps("tests.django.shop"):
        for model in (kind("A", Customer, proxy=True), kind("B", models.Model, managed=False), through):
            assert router.db_for_write(model) == "default"
    assert readers(through) == REPLICA


def test_the_database_cache_works(settings: Any) -> None:
    cache: Any = DatabaseCache("cached", {})
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cached"}}
    call_command("createcachetable", verbosity=0)
    try:
        assert cache.get("key") is None
        cache.set("key", 1)
        assert (cache.get("key"), "key" in cache, cache.add("key", 2)) == (1, True, False)
        with transaction.atomic():
            assert cache.incr("key") == 2
        cache.set("old", 1, timeout=-1)
        assert cache.get_many(["key", "old"]) == {"key": 2}
        cache.clear()
        assert cache.get("key") is None
    finally:
        with connections["default"].cursor() as cursor:
            cursor.execute("DROP TABLE cached")


class Elsewhere:
    """Another router of the project, that knows one model."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "billing" if model is Order else None


@pytest.fixture
def two_clusters(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrimaryReplicaRouter]:
    # The project with a second cluster, that nobody connects to, and a foreign database.
    from django_backend.config import databases

    more: dict[str, Any] = databases(alias="billing", NAME="b", OPTIONS={"patroni_urls": ["http://127.0.0.1:9"]})
    more["lite"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    from django.db.utils import ConnectionHandler

    for alias, made in ConnectionHandler({"default": {}, **more}).settings.items():
        if alias != "default":
            monkeypatch.setitem(connections.settings, alias, made)
    mine = PrimaryReplicaRouter()
    settings.DATABASE_ROUTERS = [mine, Elsewhere()]
    yield mine
    for alias in more:
        del connections[alias]


def test_clusters_side_by_side(two_clusters: PrimaryReplicaRouter) -> None:
    assert readers(Customer) == REPLICA
    assert router.db_for_write(Customer) == "default"
    # The other router says where; this one, that replicas of it are read.
    assert router.db_for_write(Order) == "billing"
    assert readers(Order) == ("billing", "billing_replica")


def test_related_objects_are_sought_in_their_own_cluster(two_clusters: PrimaryReplicaRouter) -> None:
    stranger = Customer(name="x")
    stranger._state.db = "billing_replica"
    assert readers(Customer, instance=stranger) == ("billing", "billing_replica")
    assert router.db_for_write(Customer, instance=stranger) == "billing"
    foreign = Customer(name="x")
    foreign._state.db = "lite"
    assert readers(Customer, instance=foreign) == ("lite", None)
    near = Customer(name="x")
    near._state.db = "replica"
    assert router.allow_relation(near, Customer(name="new")) is False
    assert not router.allow_relation(near, stranger)
    written = Customer(name="x")
    written._state.db = "default"
    assert router.allow_relation(near, written)


def test_other_engines_are_left_to_others(two_clusters: PrimaryReplicaRouter) -> None:
    assert two_clusters.allow_migrate("lite", "shop") is None
    assert router.allow_migrate("billing_replica", "shop") is False


def test_a_subclass_may_decide(settings: Any) -> None:
    class Mine(PrimaryReplicaRouter):
        def reader_for(self, primary: str, model: Any, **hints: Any) -> str:
            return primary if model is Order else super().reader_for(primary, model, **hints)

    settings.DATABASE_ROUTERS = [Mine()]
    assert readers(Order) == PRIMARY
    assert readers(Customer) == REPLICA
