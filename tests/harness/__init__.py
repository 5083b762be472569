"""Shared parts of the system tests and the demo: a private PostgreSQL, key tables, Latchkey's
programs.

Runs under the distribution's own Python 3.11 with psycopg2 as the only package. Two rules hold:
every wait is a poll with a deadline (`wait.until`), and nothing started here outlives the Python
process, however that ends.
"""
