"""Migrations: the table of commit markers."""
