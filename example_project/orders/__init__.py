"""Orders, their lines, and the stock they take from."""
