"""Settings with the models of all Django apps of this repository, for mypy's Django plugin alone."""

from __future__ import annotations

import example_project.settings
import tests.django.settings

SECRET_KEY = tests.django.settings.SECRET_KEY
USE_TZ = tests.django.settings.USE_TZ
DEFAULT_AUTO_FIELD = tests.django.settings.DEFAULT_AUTO_FIELD
DATABASES = tests.django.settings.DATABASES
INSTALLED_APPS = list(
    dict.fromkeys([*tests.django.settings.INSTALLED_APPS, *example_project.settings.INSTALLED_APPS]),
)
