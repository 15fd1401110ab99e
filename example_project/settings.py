"""Settings of the example project; everything that differs between machines comes from the environment.

``PATRONI_API_URL``
    the cluster's REST APIs, comma-separated (read by the engine itself)
``PATRONI_ADDRESS_MAP``
    other addresses for the servers, where those that they tell lead nowhere (``10.0.0.1:5432=localhost:5433,...``)
``PGDATABASE``, ``PGUSER``, ``PGPASSWORD``
    the database and the role
``ALLOWED_HOSTS``
    names this site answers to, comma-separated; by default this machine only
``SECRET_KEY``
    needed only where cookies must outlive a process
``DEBUG``
    ``1`` for Django's debug pages
"""

from __future__ import annotations

import os
import secrets

from django_backend.config import databases

_MAP = os.environ.get("PATRONI_ADDRESS_MAP")
_ELSEWHERE = {"patroni_address_map": _MAP} if _MAP else {}

DATABASES = databases(
    NAME=os.environ.get("PGDATABASE", "app"),
    USER=os.environ.get("PGUSER", "app"),
    PASSWORD=os.environ.get("PGPASSWORD", ""),
    CONN_MAX_AGE=None,
    OPTIONS={"application_name": "example_project", **_ELSEWHERE},
)
# A request that changes something does so in one transaction, exactly once: it may run again after a failover.
DATABASES["default"]["ATOMIC_REQUESTS"] = True
PATRONI_EXACTLY_ONCE = True
DATABASE_ROUTERS = ["django_backend.router.PrimaryReplicaRouter"]

INSTALLED_APPS = [
    "django_backend",
    "django.contrib.sessions",
    "example_project.orders",
    "example_project.reports",
]
MIDDLEWARE = [
    "django_backend.middleware.FailoverMiddleware",
    # Who has placed an order finds it on the next page, also where a replica lags.
    "django_backend.causal_middleware.CausalMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
# Both are kept in the cluster. The cache needs its table: manage.py createcachetable.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"}}
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"

DEBUG = os.environ.get("DEBUG") == "1"
SECRET_KEY = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")

USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
