"""docs/testing.md, done to the letter in projects that know nothing of this repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

DOCUMENT = Path(__file__).parents[2] / "docs" / "testing.md"

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not DOCUMENT.exists(), reason="a checkout has the documents, its copies do not"),
]

SETTINGS = """
from django_backend.config import databases

SECRET_KEY = "of no use elsewhere"
INSTALLED_APPS = ["django_backend", "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = databases(
    NAME="shop",
    USER="production",
    PASSWORD="production",
    OPTIONS={"patroni_urls": ["https://127.0.0.1:9"], "patroni_allowed_hosts": "db.example", "sslmode": "verify-full"},
)
DATABASE_ROUTERS = ["django_backend.router.PrimaryReplicaRouter"]
"""
SHOP = "from django.db import models\n\n\nclass Order(models.Model):\n    item = models.TextField()\n"
MYAPP = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
"""
MANAGE = (
    "import sys\nfrom django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n"
)
DJANGO_TESTS = """
from django.test import TestCase

from shop.models import Order


class Orders(TestCase):
    def test_an_order_is_found(self):
        Order.objects.create(item="book")
        self.assertEqual(Order.objects.get().item, "book")


class MoreOrders(Orders):
    pass
"""


def blocks(heading: str) -> dict[str, str]:
    """Return the files that the document shows under a heading, by the names in their first lines."""
    section = re.split(r"^##+ (.*)$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = section[section.index(heading) + 1]
    return dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", text, flags=re.DOTALL))


def run(folder: Path, files: Mapping[str, str], *command: str) -> str:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    unwanted = ("DJANGO_", "PATRONI_", "PYTEST_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    environment |= {"PYTHONPATH": str(folder)} | (
        {"DJANGO_SETTINGS_MODULE": "project"} if "project.py" in files else {}
    )
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


PROJECT = {"project.py": SETTINGS, "shop/__init__.py": "", "shop/models.py": SHOP}


def test_django_with_pytest(tmp_path: Path) -> None:
    files = PROJECT | blocks("Django with pytest-django") | {"pytest.ini": "[pytest]\n"}
    assert "2 passed" in run(tmp_path, files, "-m", "pytest", "-v")


def test_django_without_pytest(tmp_path: Path) -> None:
    runner = 'TEST_RUNNER = "django_backend.testing.ClusterRunner"'
    assert runner in DOCUMENT.read_text(encoding="utf-8")
    files = PROJECT | {"project.py": SETTINGS + runner, "shop/tests.py": DJANGO_TESTS, "manage.py": MANAGE}
    told = run(tmp_path, files, "manage.py", "test", "--parallel", "2", "shop")
    assert "Ran 2 tests" in told
    assert "OK" in told


def test_sqlalchemy(tmp_path: Path) -> None:
    files = {"myapp/__init__.py": "", "myapp/models.py": MYAPP, "pytest.ini": "[pytest]\n"}
    assert "2 passed" in run(tmp_path, files | blocks("SQLAlchemy"), "-m", "pytest", "-v")


def test_sqlalchemy_on_an_event_loop(tmp_path: Path) -> None:
    pytest.importorskip("pytest_asyncio")
    files = {"myapp/__init__.py": "", "myapp/models.py": MYAPP}
    files |= {"pytest.ini": "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"}
    assert "2 passed" in run(tmp_path, files | blocks("On an event loop"), "-m", "pytest", "-v")
