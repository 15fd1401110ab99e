"""Settings of the example project; everything that differs between machines comes from the environment.

``PATRONI_API_URL``
    the cluster's REST APIs, comma-separated (read by the engine itself)
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

DATABASES = databases(
    NAME=os.environ.get("PGDATABASE", "app"),
    USER=os.environ.get("PGUSER", "app"),
    PASSWORD=os.environ.get("PGPASSWORD", ""),
    CONN_MAX_AGE=None,
    OPTIONS={"application_name": "example_project"},
)
DATABASE_ROUTERS = ["django_backend.router.PrimaryReplicaRouter"]

INSTALLED_APPS = [
    "django_backend",
    "example_project.orders",
    "example_project.reports",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"

DEBUG = os.environ.get("DEBUG") == "1"
SECRET_KEY = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")

USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
