"""Settings of the Django tests. Importable without a cluster: conftest.py tells where it is when it runs."""

from __future__ import annotations

from django_backend.config import databases

SECRET_KEY = "of no use elsewhere"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_backend", "tests.django.shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = databases(
    NAME="app",
    USER="app",
    # A port where nobody listens: what asks before the cluster runs is refused at once.
    OPTIONS={"patroni_urls": ["http://127.0.0.1:9"], "patroni_failover_timeout": 45},
)
DATABASE_ROUTERS = ["django_backend.router.PrimaryReplicaRouter"]
