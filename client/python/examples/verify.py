"""Reads a key from standard input and prints whether its holder is admitted."""

import sys

from latchkey import Client, LatchkeyError

with Client() as latchkey:
    try:
        answer = latchkey.verify(sys.stdin.readline().rstrip("\n"))
    except LatchkeyError as error:
        sys.exit(f"no answer: {error}")

print(f"in, as {answer.subject}" if answer else f"out: {answer.verdict}")
