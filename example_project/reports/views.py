"""The page of reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.shortcuts import render
from django.views.decorators.http import require_safe

from example_project.reports.models import SalesReport

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

__all__ = ["reports"]

_SHOWN = 25


@transaction.non_atomic_requests
@require_safe
def reports(request: HttpRequest) -> HttpResponse:
    """Show the newest reports."""
    return render(request, "reports/list.html", {"reports": SalesReport.objects.all()[:_SHOWN]})
