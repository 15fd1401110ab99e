"""What clients write whose transactions must happen exactly once: a row each, and money moves between two accounts.

All accounts begin with nothing, so their sum is nothing for ever. COMMIT takes a moment that a fault can hit: a
deferred trigger sleeps in it. The commit markers' table is the example project's, by its migration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import sql

if TYPE_CHECKING:
    import psycopg

__all__ = ["ACCOUNTS", "PRODUCTS", "STOCK", "TRANSFER", "balance", "create_ledger", "pieces", "transfer_of"]

# Of the example project's catalogue, and how many of each there are.
PRODUCTS: Final = 8
STOCK: Final = 1_000_000
ACCOUNTS: Final = 20
# Seconds at most.
_IN_COMMIT: Final = 0.05

_CREATE: Final = (
    "CREATE TABLE chaos_accounts (id integer PRIMARY KEY, balance bigint NOT NULL DEFAULT 0)",
    f"INSERT INTO chaos_accounts SELECT generate_series(0, {ACCOUNTS - 1})",
    f"""
    CREATE FUNCTION chaos_take_a_moment() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(random() * {_IN_COMMIT}); RETURN NULL; END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER chaos_slow_commit AFTER INSERT ON chaos_writes DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.client LIKE 'once-%') EXECUTE FUNCTION chaos_take_a_moment()
    """,
)
_GRANT: Final = "GRANT ALL ON chaos_accounts TO {}"

# One account after the other, always in their order: no two transactions wait for each other in a ring.
TRANSFER: Final = "UPDATE chaos_accounts SET balance = balance + %s WHERE id = %s"


def create_ledger(connection: psycopg.Connection, user: str) -> None:
    """Make the tables beside ``chaos_writes``, which is there.

    :param user: who is to write to them
    """
    for statement in _CREATE:
        connection.execute(statement)
    connection.execute(sql.SQL(_GRANT).format(sql.Identifier(user)))


def transfer_of(number: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the parameters of the two :data:`TRANSFER` of a worker's transaction: amount and account of each."""
    first, second = number % ACCOUNTS, (number // ACCOUNTS + number + 1) % ACCOUNTS
    amount = number % 100 + 1
    if first == second:
        second = (second + 1) % ACCOUNTS
    return ((amount, first), (-amount, second)) if first < second else ((-amount, second), (amount, first))


def pieces(connection: psycopg.Connection) -> int:
    """Return how many pieces are too few or too many in the shop, of those in stock and those ordered."""
    ordered = "SELECT coalesce(sum(quantity), 0) FROM orders_orderline"
    row = connection.execute(f"SELECT (SELECT sum(stock) FROM orders_product) + ({ordered})").fetchone()  # noqa: S608
    assert row is not None  # noqa: S101 - an aggregate has one row
    return int(row[0]) - PRODUCTS * STOCK


def balance(connection: psycopg.Connection) -> int:
    """Return the sum of all accounts: nothing, if each transfer was done whole."""
    row = connection.execute("SELECT sum(balance)::bigint FROM chaos_accounts").fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return int(row[0])
