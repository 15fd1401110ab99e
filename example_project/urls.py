"""The site's addresses."""

from __future__ import annotations

from django.urls import path

from example_project.orders import api, views
from example_project.reports.views import reports

urlpatterns = [
    path("", views.order_list, name="orders"),
    path("orders/", views.place, name="place"),
    path("orders/<int:pk>/", views.order_detail, name="order"),
    path("reports/", reports, name="reports"),
    path("api/orders/", api.orders, name="api-orders"),
    path("api/orders/<int:pk>/", api.order, name="api-order"),
    path("api/stock/", api.stock, name="api-stock"),
]
