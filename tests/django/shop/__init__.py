"""A small application to test with."""
