"""The simulated world: one plant per file, each with `build(parameters) -> NonlinearModel`."""

NOT_MODELS = ("parameters", "simulation", "disturbances")
"""Modules of this package that are not plants."""
