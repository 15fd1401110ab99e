"""A small shop on a Patroni cluster: orders in Django, a reporting job in SQLAlchemy."""
