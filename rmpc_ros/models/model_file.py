"""Hybrid models on disk: one .npz with the numbers and a JSON header with version, plant, data window and checksum.

A file is used only if it is complete, of this format, and of the plant at hand; everything else is refused with the
reason, and the running controller keeps the model it has.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.models.features import features_from_arrays
from rmpc_ros.models.hybrid import DataWindow, HybridModel, Structure
from rmpc_ros.models.parameters import ParameterBelief
from rmpc_ros.models.physics import Physics
from rmpc_ros.models.residual import BayesianLayer

FORMAT = 1
Arrays = dict[str, NDArray[Any]]


def save_model(model: HybridModel, path: Path) -> str:
    """Write a model; returns its checksum. The file appears complete or not at all."""
    s, layer, belief = model.structure, model.layer, model.belief
    arrays: Arrays = {f"features.{k}": v for k, v in s.features.arrays().items()}
    arrays |= {
        "centre": s.centre,
        "scale": s.scale,
        "residual_scale": s.residual_scale,
        "layer.mean": layer.mean,
        "layer.covariance": layer.covariance,
        "layer.noise": layer.noise,
        "belief.mean": belief.mean,
        "belief.covariance": belief.covariance,
    }
    header = {
        "format": FORMAT,
        "plant": _plant(s.physics),
        "features": s.features.kind,
        "version": model.version,
        "window": [model.window.samples, model.window.begin, model.window.end],
        "layer": [layer.prior, layer.samples],
        "belief": [belief.prior, belief.drift, belief.freedom, belief.lower, belief.upper],
        "checksum": _checksum(arrays),
    }
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(buffer, allow_pickle=False, header=text, **arrays)
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(buffer.getvalue())
    part.replace(path)
    return str(header["checksum"])


def load_model(path: Path, physics: Physics) -> HybridModel:
    """Read a model for this physics.

    Raises
    ------
    DataError
        The file is missing, truncated, changed, of another format, or of another plant.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(bytes(arrays.pop("header")).decode())
    except FileNotFoundError:
        raise DataError(f"model file {path}: does not exist") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"model file {path}: truncated or no model file ({error})") from error
    if header.get("format") != FORMAT:
        raise DataError(f"model file {path}: format {header.get('format')}; this program reads format {FORMAT}")
    if header["checksum"] != _checksum(arrays):
        raise DataError(f"model file {path}: its checksum does not fit its content; it was changed or damaged")
    wanted = _plant(physics)
    for key, value in wanted.items():
        if header["plant"].get(key) != value:
            raise DataError(
                f"model file {path}: made for {key} = {header['plant'].get(key)}; this plant has {key} = {value}"
            )
    parts = {k.removeprefix("features."): v for k, v in arrays.items() if k.startswith("features.")}
    structure = Structure(
        physics,
        features_from_arrays(header["features"], parts),
        arrays["centre"],
        arrays["scale"],
        arrays["residual_scale"],
    )
    prior, samples = header["layer"]
    layer = BayesianLayer(arrays["layer.mean"], arrays["layer.covariance"], arrays["layer.noise"], prior, samples)
    belief = ParameterBelief(arrays["belief.mean"], arrays["belief.covariance"], *header["belief"])
    window = header["window"]
    return HybridModel(structure, layer, belief, int(header["version"]), DataWindow(*window))


def _plant(physics: Physics) -> dict[str, Any]:
    return {
        "name": physics.name,
        "states": list(physics.states),
        "inputs": list(physics.inputs),
        "disturbances": list(physics.disturbances),
        "parameters": list(physics.parameters),
        "period": physics.period,
    }


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
