"""The table of commit markers, as :mod:`patroni_db.markers` has it for everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import django.db.models.functions.datetime
from django.db import migrations, models

from django_backend.migration_operations import OnPostgreSQL
from patroni_db.markers import CREATE_TABLE, DROP_TABLE, KEY_LENGTH, TABLE

if TYPE_CHECKING:
    from django.db.migrations.operations.base import Operation


# SQL, because Django would give the key a second index, for LIKE, that every transaction would pay for.
_STATE: list[Operation] = [
    migrations.CreateModel(
        name="CommitMarker",
        fields=[
            ("key", models.CharField(max_length=KEY_LENGTH, primary_key=True, serialize=False)),
            ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ("collisions", models.IntegerField(db_default=0)),
        ],
        options={"db_table": TABLE},
    )
]


class Migration(migrations.Migration):
    """Create the table, unless something else that uses the same database has."""

    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar[list[Operation]] = [
        OnPostgreSQL(CREATE_TABLE, DROP_TABLE, state_operations=_STATE, hints={"model_name": "commitmarker"})
    ]
