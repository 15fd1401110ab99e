"""The table of commit markers, as :mod:`patroni_db.markers` has it for everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import django.db.models.functions.datetime
from django.db import migrations, models

from patroni_db.markers import CREATE_TABLE, DROP_TABLE, KEY_LENGTH, TABLE

if TYPE_CHECKING:
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor
    from django.db.migrations.operations.base import Operation
    from django.db.migrations.state import ProjectState


class OnPostgreSQL(migrations.RunSQL):
    """Runs on PostgreSQL only: the project's other databases have no use for the table."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Create the table."""
        if schema_editor.connection.vendor == "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Drop the table."""
        if schema_editor.connection.vendor == "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)


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
