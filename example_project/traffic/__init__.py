"""Clients of the shop that work without a pause, as the demo (``patroni-db demo``) starts them.

They are what an application is: none of them knows of nodes, roles, faults or retries.
"""
