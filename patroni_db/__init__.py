"""Applications on a Patroni PostgreSQL cluster that survive failovers."""

__version__ = "0.1.0"
