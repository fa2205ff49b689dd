"""Feature maps phi(z) of learned residuals: what the Bayesian layer is linear in.

    linear    phi = (1, z)
    network   phi = (1, z, C' h(z)),   h the last hidden layers of an ensemble of small tanh networks, C a compression
    inducing  phi = (1, z, L^-1 k(U, z)),   k squared-exponential, L L' = k(U, U): a sparse Gaussian process

Every map is numpy for the control step and CasADi for derivatives, from the same numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import casadi as ca
import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.neural_network import MLPRegressor

from rmpc_ros.errors import DataError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


class FeatureMap(Protocol):
    """A fixed map from normalised model inputs z to features."""

    @property
    def kind(self) -> str:
        """Name in files and settings."""
        ...

    @property
    def count(self) -> int:
        """Number p of features."""
        ...

    def __call__(self, z: Matrix) -> Matrix:
        """Features of each row, (N, nz) -> (N, p)."""
        ...

    def casadi(self, z: ca.MX) -> ca.MX:
        """Features of a column symbol, (nz,) -> (p,)."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Numbers that define the map, for files."""
        ...


@dataclass(frozen=True)
class LinearFeatures:
    """phi(z) = (1, z)."""

    size: int
    kind: str = "linear"

    @property
    def count(self) -> int:
        """1 + nz."""
        return 1 + self.size

    def __call__(self, z: Matrix) -> Matrix:
        """(N, nz) -> (N, 1 + nz)."""
        return np.hstack([np.ones((len(z), 1)), z])

    def casadi(self, z: ca.MX) -> ca.MX:
        """The same with CasADi symbols."""
        return ca.vertcat(1.0, z)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Only the size."""
        return {"size": np.array(self.size)}


@dataclass(frozen=True)
class NetworkFeatures:
    """phi(z) = (1, z, C' (tanh(W2 tanh(W1 z + b1) + b2))) with the ensemble's networks stacked.

    Attributes
    ----------
    W1 : (E h, nz);  b1 : (E h,)
    W2 : (E, h, h) one block per network;  b2 : (E h,)
    C : (E h, c) compression;  shift : (c,) mean of C'h over the training data
    """

    W1: Matrix
    b1: Vector
    W2: NDArray[np.float64]
    b2: Vector
    C: Matrix
    shift: Vector
    kind: str = "network"

    @property
    def count(self) -> int:
        """1 + nz + c."""
        return int(1 + self.W1.shape[1] + self.C.shape[1])

    def hidden(self, z: Matrix) -> Matrix:
        """Last hidden layers of all networks, (N, nz) -> (N, E h)."""
        members, width = self.W2.shape[0], self.W2.shape[1]
        first = np.tanh(z @ self.W1.T + self.b1).reshape(len(z), members, width)
        second = np.einsum("nei,eji->nej", first, self.W2).reshape(len(z), members * width)
        return np.asarray(np.tanh(second + self.b2))

    def __call__(self, z: Matrix) -> Matrix:
        """(N, nz) -> (N, 1 + nz + c)."""
        return np.hstack([np.ones((len(z), 1)), z, self.hidden(z) @ self.C - self.shift])

    def casadi(self, z: ca.MX) -> ca.MX:
        """The same with CasADi symbols."""
        first = ca.tanh(ca.mtimes(ca.DM(self.W1), z) + ca.DM(self.b1))
        width = self.W2.shape[1]
        parts = [ca.mtimes(ca.DM(block), first[n * width : (n + 1) * width]) for n, block in enumerate(self.W2)]
        second = ca.tanh(ca.vertcat(*parts) + ca.DM(self.b2))
        return ca.vertcat(1.0, z, ca.mtimes(ca.DM(self.C.T), second) - ca.DM(self.shift))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All weights."""
        return {k: getattr(self, k) for k in ("W1", "b1", "W2", "b2", "C", "shift")}


@dataclass(frozen=True)
class InducingFeatures:
    """phi(z) = (1, z, a L^-1 k(U, z)), k(u, z) = exp(-1/2 |(u - z) / l|^2): a Gaussian process on inducing points.

    Attributes
    ----------
    points : (m, nz) inducing points U, m <= 200
    lengths : (nz,) length scales l
    amplitude : a, standard deviation of the process
    root : (m, m) lower triangular L
    """

    points: Matrix
    lengths: Vector
    amplitude: float
    root: Matrix
    kind: str = "inducing"

    @property
    def count(self) -> int:
        """1 + nz + m."""
        return int(1 + self.points.shape[1] + self.points.shape[0])

    def __call__(self, z: Matrix) -> Matrix:
        """(N, nz) -> (N, 1 + nz + m)."""
        kernel = _kernel(self.points / self.lengths, z / self.lengths)
        part = self.amplitude * linalg.solve_triangular(self.root, kernel, lower=True).T
        return np.hstack([np.ones((len(z), 1)), z, part])

    def casadi(self, z: ca.MX) -> ca.MX:
        """The same with CasADi symbols."""
        m = self.points.shape[0]
        scaled = ca.DM(self.points / self.lengths) - ca.repmat((z / ca.DM(self.lengths)).T, m, 1)
        kernel = ca.exp(-0.5 * ca.sum2(scaled**2))
        inverse = linalg.solve_triangular(self.root, np.eye(m), lower=True)
        return ca.vertcat(1.0, z, self.amplitude * ca.mtimes(ca.DM(inverse), kernel))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Points, scales and the factor."""
        out: dict[str, NDArray[Any]] = {k: getattr(self, k) for k in ("points", "lengths", "root")}
        return {**out, "amplitude": np.array(self.amplitude)}


def _kernel(one: Matrix, two: Matrix) -> Matrix:
    distance = np.sum(one**2, 1)[:, None] + np.sum(two**2, 1)[None] - 2 * one @ two.T
    return np.asarray(np.exp(-0.5 * np.maximum(distance, 0.0)))


def features_from_arrays(kind: str, arrays: Mapping[str, NDArray[Any]]) -> FeatureMap:
    """Inverse of `FeatureMap.arrays`.

    Raises
    ------
    DataError
        Unknown kind.
    """
    if kind == "linear":
        return LinearFeatures(int(arrays["size"]))
    if kind == "network":
        weights: dict[str, Any] = dict(arrays)
        return NetworkFeatures(**weights)
    if kind == "inducing":
        values: dict[str, Any] = {**arrays, "amplitude": float(arrays["amplitude"])}
        return InducingFeatures(**values)
    raise DataError(f"features of kind '{kind}' are unknown; known: linear, network, inducing")


def fit_features(
    kind: str, z: Matrix, y: Matrix, seed: int = 0, members: int = 5, width: int = 32, count: int = 64
) -> FeatureMap:
    """Learn a feature map from normalised inputs z (N, nz) and residuals y (N, n), both of order one.

    Parameters
    ----------
    kind : "linear", "network" (ensemble of tanh networks) or "inducing" (sparse Gaussian process)
    members, width : networks in the ensemble and neurons in each of their two layers
    count : number of features aimed at, bias and z included
    """
    size = z.shape[1]
    if kind == "linear":
        return LinearFeatures(size)
    if kind == "network":
        return _fit_networks(z, y, seed, members, width, count)
    if kind == "inducing":
        return _fit_inducing(z, y, seed, min(count - 1 - size, 200))
    raise DataError(f"features of kind '{kind}' are unknown; known: linear, network, inducing")


def _fit_networks(z: Matrix, y: Matrix, seed: int, members: int, width: int, count: int) -> NetworkFeatures:
    rng = np.random.default_rng(seed)
    layers: list[list[Matrix]] = []
    offsets: list[list[Vector]] = []
    for n in range(members):
        rows = rng.integers(0, len(z), len(z))  # bagging: members must disagree where there are no data
        network = MLPRegressor(
            hidden_layer_sizes=(width, width),
            activation="tanh",
            solver="lbfgs",
            alpha=1e-2,
            max_iter=80,
            random_state=seed + n,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is wanted: it regularises
            network.fit(z[rows], y[rows] if y.shape[1] > 1 else y[rows, 0])
        layers.append(network.coefs_)
        offsets.append(network.intercepts_)
    hidden_count = members * width
    whole = NetworkFeatures(
        np.vstack([w[0].T for w in layers]),
        np.concatenate([b[0] for b in offsets]),
        np.stack([w[1].T for w in layers]),
        np.concatenate([b[1] for b in offsets]),
        np.eye(hidden_count),
        np.zeros(hidden_count),
    )
    hidden = whole.hidden(z)
    own_outputs = linalg.block_diag(*[w[2] for w in layers])
    spare = max(count - 1 - z.shape[1], 1)
    _, _, components = np.linalg.svd(hidden - hidden.mean(0), full_matrices=False)
    # what each network predicts comes first, then the directions in which the hidden layers vary most
    directions = np.hstack([own_outputs, components.T])[:, : min(spare, hidden_count)]
    basis, _ = np.linalg.qr(directions)
    compressed = basis / np.maximum(np.std(hidden @ basis, axis=0), 1e-3)
    C = np.ascontiguousarray(compressed)
    return replace(whole, C=C, shift=(hidden @ C).mean(0))


def _fit_inducing(z: Matrix, y: Matrix, seed: int, count: int) -> InducingFeatures:
    rng = np.random.default_rng(seed)
    count = max(min(count, len(z) // 2), 1)
    sample = rng.permutation(len(z))[:300]  # length scales come from an exact process on a part of the data
    kernel = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(np.ones(z.shape[1]), (0.1, 30.0)) + WhiteKernel(0.1, (1e-6, 10.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its bound is an answer, too
        process.fit(z[sample], y[sample])
    amplitude = float(np.sqrt(process.kernel_.k1.k1.constant_value))
    lengths = np.broadcast_to(process.kernel_.k1.k2.length_scale, z.shape[1]).astype(float).copy()
    points = KMeans(count, n_init=1, random_state=seed).fit(z / lengths).cluster_centers_ * lengths
    scaled = points / lengths
    root = np.linalg.cholesky(_kernel(scaled, scaled) + 1e-6 * np.eye(count))
    return InducingFeatures(np.asarray(points, float), lengths, max(amplitude, 0.1), np.asarray(root, float))
