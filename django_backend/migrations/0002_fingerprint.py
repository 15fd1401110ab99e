"""A column for fingerprints, in tables that were made before there were any."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.db import migrations, models

from django_backend.migration_operations import OnPostgreSQL
from patroni_db.markers import ADD_FINGERPRINT, DROP_FINGERPRINT, FINGERPRINT_LENGTH

if TYPE_CHECKING:
    from django.db.migrations.operations.base import Operation

_STATE: list[Operation] = [
    migrations.AddField("commitmarker", "fingerprint", models.CharField(max_length=FINGERPRINT_LENGTH, null=True))
]


class Migration(migrations.Migration):
    """Add the column, unless it is there."""

    dependencies: ClassVar[list[tuple[str, str]]] = [("django_backend", "0001_initial")]
    operations: ClassVar[list[Operation]] = [
        OnPostgreSQL(ADD_FINGERPRINT, DROP_FINGERPRINT, state_operations=_STATE, hints={"model_name": "commitmarker"})
    ]
