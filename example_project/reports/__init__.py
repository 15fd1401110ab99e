"""Sales reports: shown by Django, made by a SQLAlchemy job (``python -m example_project.reports``)."""
