"""The oracle: keys change at random, faults are injected, and no answer may be wrong.

`history` is pure: the versions of each key, and the legal answers. Around it, `workers` (`changer`,
`shifter`) change keys in a real PostgreSQL, `clients` verify without pause, `faults` break things,
`judge` compares answers with the history, and `run` does one complete run. `scripts/oracle` starts it.

In the four tables of `tables`, rows change and the definition stays. In those that `shifts` lists
(`mixed`, `parted`, `twins`), the definition changes, too: types, columns, labels, partitions, names,
rights. Sessions have odd settings.
"""
