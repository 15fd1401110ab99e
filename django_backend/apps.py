"""The application: system checks and ``manage.py patroni``."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import Tags, register

__all__ = ["PatroniAppConfig"]


class PatroniAppConfig(AppConfig):
    """Put ``"django_backend"`` into ``INSTALLED_APPS``."""

    name = "django_backend"
    verbose_name = "Patroni"

    def ready(self) -> None:
        """Register the system checks."""
        from django_backend.checks import check_databases, check_deployment  # noqa: PLC0415 - when the registry is ready

        # Not under Tags.database: they connect to nothing, so `check` and `runserver` shall run them too.
        register(check_databases, "patroni")
        register(check_deployment, Tags.security, deploy=True)
