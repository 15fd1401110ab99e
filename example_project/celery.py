"""The shop's Celery application: ``celery --app example_project worker``."""

from __future__ import annotations

import os

from celery import Celery

__all__ = ["app"]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

app = Celery("example_project")
# CELERY_BROKER_URL and the like, in Django's settings.
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
