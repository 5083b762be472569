"""The soak: a daemon under everyday load for a given time. `scripts/soak` starts it."""
