"""A web application on SQLAlchemy alone: each request is one transaction, which survives a failover."""
