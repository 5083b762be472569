"""The soak: a daemon under everyday load for as long as asked. `scripts/soak` starts it."""
