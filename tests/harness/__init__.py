"""What the system tests and the demo share: a private PostgreSQL, key tables, our programs.

Runs under the distribution's own Python 3.11 with nothing but psycopg2. Two rules hold throughout:
a wait is a poll with a deadline (`wait.until`), and nothing that was started here outlives the
Python process, however that ends.
"""
