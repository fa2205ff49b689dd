"""A linear system over a horizon, written with the modelling interface.

    x(t+1) = A x(t) + B u(t) + E w(t) + d(t),     u(t) = K x(t) + c(t)

Stacked vectors: X = (x(1), ..., x(N)), U = (u(0), ..., u(N-1)), W = (w(0), ..., w(N-1)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.robust.affine import Affine

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LinearHorizon:
    """Matrices of X = Phi x(0) + Gamma C + Theta (W-part) with the law K closed: u = K x + c.

    Parameters
    ----------
    A : (nx, nx), B : (nx, nu), E : (nx, nw)
    N : steps
    K : (nu, nx), default zero: then c is the input itself
    """

    A: Matrix
    B: Matrix
    E: Matrix
    N: int
    K: Matrix | None = None

    def __post_init__(self) -> None:
        nx, nu = self.B.shape
        if self.A.shape != (nx, nx) or self.E.shape[0] != nx or (self.K is not None and self.K.shape != (nu, nx)):
            raise ValueError(f"A {self.A.shape}, B {self.B.shape}, E {self.E.shape} do not fit")

    @property
    def _closed(self) -> Matrix:
        return self.A if self.K is None else self.A + self.B @ self.K

    def phi(self) -> Matrix:
        """(N nx, nx)."""
        powers = [self._closed]
        for _ in range(self.N - 1):
            powers.append(self._closed @ powers[-1])
        return np.vstack(powers)

    def through(self, M: Matrix) -> Matrix:
        """(N nx, N k): how a stacked vector that enters by M (nx, k) moves the states."""
        nx, k = M.shape
        out = np.zeros((self.N, nx, self.N, k))
        block = M
        for lag in range(self.N):
            for t in range(lag, self.N):
                out[t, :, t - lag, :] = block
            block = self._closed @ block
        return out.reshape(self.N * nx, self.N * k)

    def states(self, x0: Affine, c: Affine, w: Affine, offset: Affine | ArrayLike | None = None) -> Affine:
        """X as an expression; `offset` (N nx,) is d stacked."""
        out = self.phi() @ x0 + self.through(self.B) @ c + self.through(self.E) @ w
        if offset is not None:
            identity = self.through(np.eye(self.A.shape[0]))
            out = out + (identity @ offset if isinstance(offset, Affine) else identity @ np.asarray(offset, float))
        return out

    def inputs(self, x0: Affine, X: Affine, c: Affine) -> Affine:
        """U as an expression."""
        if self.K is None:
            return c
        nx = self.A.shape[0]
        first = sparse.csr_array((np.ones(nx), (np.arange(nx), np.arange(nx))), shape=(self.N * nx, nx))
        later = sparse.eye_array(self.N * nx, k=-nx, format="csr")
        before = x0.left(first) + X.left(later)
        return before.left(sparse.csr_array(np.kron(np.eye(self.N), self.K))) + c
