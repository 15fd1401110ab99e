"""The engine: ``ENGINE`` ``"django_backend"``."""

from __future__ import annotations

from django.db.backends.postgresql import base

from django_backend.mixin import PatroniMixin

__all__ = ["DatabaseWrapper"]


class DatabaseWrapper(PatroniMixin, base.DatabaseWrapper):
    """Django's PostgreSQL backend, following a Patroni cluster."""
