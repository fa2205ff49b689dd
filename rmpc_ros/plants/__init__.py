"""The simulated world: one plant per file."""
