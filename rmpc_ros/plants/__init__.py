"""The simulated world: one plant per file, each with `build(parameters) -> NonlinearModel`.

`Plant(config)` (or `make_plant`) simulates a plant file, whichever model it names.
"""

from rmpc_ros.plants.simulation import Plant, make_plant

__all__ = ["NOT_MODELS", "Plant", "make_plant"]

NOT_MODELS = ("parameters", "simulation", "disturbances", "generate", "supply_chain", "energy_hub")
"""Modules of this package that are not models to be named in a plant file: the last two write matrices."""
