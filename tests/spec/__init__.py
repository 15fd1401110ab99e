"""Patroni's recorded answers, replayed."""
