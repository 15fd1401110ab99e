"""Settings for Django's suite; the environment says where the cluster is and which backend is tried."""

from __future__ import annotations

import json
import os
from typing import Any

_CASE = json.loads(os.environ["CONFORMANCE_CASE"])


def _database(name: str) -> dict[str, Any]:
    login = {"USER": _CASE["user"], "PASSWORD": _CASE["password"], "NAME": name}
    if _CASE["kind"] == "ours":
        return {"ENGINE": "django_backend", "OPTIONS": {"patroni_urls": _CASE["urls"]}, **login}
    return {"ENGINE": "django.db.backends.postgresql", "HOST": _CASE["host"], "PORT": _CASE["port"], **login}


DATABASES = {"default": _database(f"conformance_{_CASE['kind']}"), "other": _database(f"other_{_CASE['kind']}")}
SECRET_KEY = "of no use elsewhere"
USE_TZ = False
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
TEST_RUNNER = "tests.conformance.django_runner.Runner"
