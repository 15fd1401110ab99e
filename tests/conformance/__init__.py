"""Django's and SQLAlchemy's own test suites, run on their PostgreSQL backends and on ours, side by side.

``python -m tests.conformance`` fetches the source distributions of the installed releases through the package index,
runs both suites on one local cluster, and fails on each test that ends differently and is not declared in
``differences.toml``.
"""
