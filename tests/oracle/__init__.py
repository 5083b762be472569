"""The oracle: keys change at random, faults are injected, and no answer may be wrong.

`history` is pure: what each key said when, and which answers are legal. Around it, `workers` change
keys in a real PostgreSQL, `clients` verify without pause, `faults` break things, `judge` brings
answers and history together, `run` is one run of it all. `scripts/oracle` starts it.

Rows of the four tables in `tables` change and their definition stays; the definition of the tables in
`shifting` changes, too: types, columns, labels, partitions, names, rights. Sessions have odd settings.
"""
