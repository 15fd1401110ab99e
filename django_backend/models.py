"""The table of commit markers."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from patroni_db.markers import FINGERPRINT_LENGTH, KEY_LENGTH, TABLE

__all__ = ["CommitMarker"]


class CommitMarker(models.Model):
    """The key of a transaction that has committed.

    The statements on this table are those of :mod:`patroni_db.markers`; the model lets Django create it and look at it.
    Its index by age is not declared here: from Django 6.0 on that takes ``django.contrib.postgres`` in INSTALLED_APPS.

    :ivar key: of the transaction
    :ivar created_at: when that began, or nearly ended if it took longer than a second
    :ivar collisions: how often somebody has come with the same key afterwards
    :ivar fingerprint: of the work that the key stands for, if its caller gave one
    """

    key = models.CharField(max_length=KEY_LENGTH, primary_key=True)
    created_at = models.DateTimeField(db_default=Now())
    collisions = models.IntegerField(db_default=0)
    fingerprint = models.CharField(max_length=FINGERPRINT_LENGTH, null=True)  # noqa: DJ001 - most have none

    class Meta:
        db_table = TABLE

    def __str__(self) -> str:
        return self.key
