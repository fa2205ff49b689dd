"""The plant file: read, checked, and turned into models.

`load_plant(path)` is the one way in. Everything wrong with a file is a ConfigError that names file, line, key, value
and what is allowed.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from rmpc_ros.config import checks, source
from rmpc_ros.config.plant_config import PlantConfig
from rmpc_ros.config.source import Source
from rmpc_ros.errors import ConfigError, NumericalError

__all__ = ["PlantConfig", "load_plant", "parse_plant"]


def load_plant(path: Path | str) -> PlantConfig:
    """Read and check a plant file.

    Raises
    ------
    ConfigError
        The file is wrong; the message names file, line, key, value and what is allowed.
    """
    return _checked(source.read_file(path))


def parse_plant(text: str, name: str = "plant file") -> PlantConfig:
    """As `load_plant`, from text."""
    return _checked(source.read(text, name))


def _checked(origin: Source) -> PlantConfig:
    try:
        config = PlantConfig.model_validate(origin.data)
    except ValidationError as error:
        raise origin.error(source.problems_of(error, PlantConfig, origin)) from None
    config._origin = origin
    for check in (checks.structural, checks.against_model, checks.physical):
        try:
            problems = check(config)
        except (ConfigError, NumericalError) as error:
            raise ConfigError(f"{origin.name}: {error}") from error
        if problems:
            raise origin.error(problems)
    return config
