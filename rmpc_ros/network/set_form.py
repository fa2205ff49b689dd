"""How an announced set is written in a program: which numbers are shared, and the two sides' constraints.

Sender j and receiver i share per stage the numbers (scales, centre); each side has its own variables for them, which
the joint design identifies and ADMM brings to agreement. The forms:

    PointForm    zeta = z                      nominal networks
    ScaledForm   zeta = R diag(y) s + z        y, z free: convex, the normal case (`primitive.Shape`)
    ColumnForm   zeta = Y0 diag(y) s + z       Y0 (n, m) fixed, the sender chooses s(w) affine: p = Y0 sigma(w) + z
    MatrixForm   zeta = Y s + z                Y free, the sender's map s(w) fixed: p = Y sigma(w) + z

The last two are the half-steps of block-coordinate descent for a flexible set (seed 004, equation 7a and section 5.1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.network.affine_table import Integers, Matrix, Table, Vector
from rmpc_ros.network.model import Signal
from rmpc_ros.network.primitive import Shape
from rmpc_ros.network.robust_program import RobustProgram
from rmpc_ros.solvers.lp import solve_lp


@dataclass(frozen=True)
class AnnouncedSet:
    """Numbers of one announced set: zeta = matrix s + centre, s in the primitive set.

    Attributes
    ----------
    scale : (k,) what is shared beside the centre: y, or the flattened matrix of a flexible set
    centre : (n,) z
    matrix : (n, m)
    """

    scale: Vector
    centre: Vector
    matrix: Matrix


class SetForm(ABC):
    """The announced sets of one signal at stages 0..T-1; stage 0 of a state signal is a known point."""

    def __init__(self, signal: Signal, label: str, stages: int) -> None:
        self.signal, self.label, self.stages = signal, label, stages
        self.n = signal.size

    def is_point(self, t: int) -> bool:
        """Whether the signal is known at stage t."""
        return t == 0 and self.signal.is_known_at_start

    @property
    @abstractmethod
    def scales(self) -> int:
        """Entries of the scale part at one stage (including any free matrix)."""

    @abstractmethod
    def scale_bounds(self) -> tuple[float, float]:
        """Bounds of the scale part."""

    @abstractmethod
    def declare(self, program: RobustProgram, t: int) -> Integers:
        """Append s of stage t to w; returns its columns."""

    @abstractmethod
    def matrix_table(self, y: Integers, columns: Integers, t: int) -> Table:
        """The uncertain part of zeta at stage t."""

    @abstractmethod
    def contain_deviation(self, program: RobustProgram, deviation: Table, y: Integers, t: int) -> None:
        """Sender's side: p(w) - z stays in the uncertain part's range."""

    @abstractmethod
    def matrix(self, scale: Vector, t: int) -> Matrix:
        """(n, m) matrix of zeta at given scales."""

    def shares_scale(self) -> bool:
        """One scale part for all stages."""
        return False

    def allocate(self, program: RobustProgram) -> list[Integers]:
        """Variables (scales, centre) per stage; empty where the signal is known."""
        low, high = self.scale_bounds()
        out: list[Integers] = []
        kept: Integers | None = None
        for t in range(self.stages):
            if self.is_point(t):
                out.append(np.empty(0, np.int64))
                continue
            scale = kept if kept is not None else program.new(self.scales, low, high)
            kept = scale if self.shares_scale() else None
            centre = program.new(0 if self.signal.floor is not None else self.n)
            out.append(np.concatenate([scale, centre]))
        return out

    def centre(self, index: Integers) -> Table:
        """Z as a table; with a floor, z = floor + y (box shapes with one scale per coordinate)."""
        if self.signal.floor is None:
            return Table.variables(index[self.scales :][:, None], [0])
        return Table.variables(index[: self.n][:, None], [0]) + Table.constant(self.signal.floor)

    def zeta(self, index: Integers, columns: Integers, t: int) -> Table:
        """The receiver's picture of the signal at stage t."""
        return self.matrix_table(index[: self.scales], columns, t) + self.centre(index)

    def contain(self, program: RobustProgram, p: Table, index: Integers, t: int) -> None:
        """The sender's promise at stage t: its signal p(w) lies in the set for every w."""
        self.contain_deviation(program, p - self.centre(index), index[: self.scales], t)

    def numbers(self, values: Vector, t: int) -> AnnouncedSet:
        """The set at given values of (scales, centre)."""
        scale = values[: self.scales]
        centre = scale[: self.n] + self.signal.floor if self.signal.floor is not None else values[self.scales :]
        return AnnouncedSet(scale, centre, self.matrix(scale, t))

    def recover(self, value: Vector, announced: AnnouncedSet, t: int) -> Vector:
        """An s with value = matrix s + centre: the pseudo-inverse, 0 where the set is flat (seed 002 equation 8)."""
        inverse: Matrix = np.asarray(np.linalg.pinv(announced.matrix, rcond=1e-9), float)
        return inverse @ (value - announced.centre)

    @abstractmethod
    def gauge(self, values: NDArray[np.float64], announced: AnnouncedSet, t: int) -> NDArray[np.float64]:
        """(m,) at most 1 for the points (m, n) inside the set."""


class ScaledForm(SetForm):
    """zeta = R diag(y) s + z."""

    def __init__(self, signal: Signal, label: str, stages: int, shape: Shape) -> None:
        super().__init__(signal, label, stages)
        self.shape = shape

    @property
    def scales(self) -> int:
        """Entries of y."""
        return self.shape.scales

    def scale_bounds(self) -> tuple[float, float]:
        """Half-widths are not negative."""
        return 0.0, np.inf

    def shares_scale(self) -> bool:
        """As the shape says."""
        return self.shape.shared_in_time

    def declare(self, program: RobustProgram, t: int) -> Integers:
        """Columns of s."""
        return self.shape.declare(program, self.label, t)

    def matrix_table(self, y: Integers, columns: Integers, t: int) -> Table:
        """R diag(y) s."""
        return self.shape.table(y, Table.zeros(self.n), columns)

    def contain_deviation(self, program: RobustProgram, deviation: Table, y: Integers, t: int) -> None:
        """R^-1 (p - z) in diag(y) S."""
        self.shape.contain(program, deviation, y)

    def matrix(self, scale: Vector, t: int) -> Matrix:
        """R diag(y)."""
        return self.shape.transform * np.maximum(scale, 0.0)[self.shape.scale_of()]

    def recover(self, value: Vector, announced: AnnouncedSet, t: int) -> Vector:
        """diag(y)^+ R^-1 (p - z)."""
        return self.shape.recover(value, announced.scale, announced.centre)

    def gauge(self, values: NDArray[np.float64], announced: AnnouncedSet, t: int) -> NDArray[np.float64]:
        """Largest ratio over the groups."""
        reach: Vector = np.max(self.shape.gauge(values - announced.centre, announced.scale), axis=1)
        return reach


class PointForm(SetForm):
    """zeta = z: a plain predicted trajectory, for networks without disturbances (and as the yardstick of others)."""

    @property
    def scales(self) -> int:
        """A point has none."""
        return 0

    def scale_bounds(self) -> tuple[float, float]:
        """Nothing to bound."""
        return 0.0, 0.0

    def declare(self, program: RobustProgram, t: int) -> Integers:
        """No columns."""
        return np.empty(0, np.int64)

    def matrix_table(self, y: Integers, columns: Integers, t: int) -> Table:
        """Nothing is uncertain."""
        return Table.zeros(self.n)

    def contain_deviation(self, program: RobustProgram, deviation: Table, y: Integers, t: int) -> None:
        """Constraint p = z."""
        program.equal_zero(deviation)

    def matrix(self, scale: Vector, t: int) -> Matrix:
        """(n, 0)."""
        return np.zeros((self.n, 0))

    def gauge(self, values: NDArray[np.float64], announced: AnnouncedSet, t: int) -> NDArray[np.float64]:
        """0 at the point, infinite elsewhere."""
        away = np.max(np.abs(values - announced.centre), axis=1) > 1e-6
        return np.where(away, np.inf, 0.0)


class _BoxForm(SetForm):
    """Forms whose primitive set is the box of dimension m."""

    @property
    @abstractmethod
    def generators(self) -> int:
        """M."""

    def declare(self, program: RobustProgram, t: int) -> Integers:
        """Columns of s."""
        return program.w.add("box", self.generators, self.label, t)

    def gauge(self, values: NDArray[np.float64], announced: AnnouncedSet, t: int) -> NDArray[np.float64]:
        """Min norm_inf(s) over the s that give the value, by one linear program per point."""
        n, m = announced.matrix.shape
        rows = np.block(
            [[announced.matrix, np.zeros((n, 1))], [np.eye(m), -np.ones((m, 1))], [-np.eye(m), -np.ones((m, 1))]]
        )
        out = []
        for point in values - announced.centre:
            high = np.concatenate([point + 1e-7, np.zeros(2 * m)])
            low = np.concatenate([point - 1e-7, np.full(2 * m, -np.inf)])
            out.append(solve_lp(np.eye(m + 1)[m], rows, low, high).objective)
        return np.array(out)


class ColumnForm(_BoxForm):
    """zeta = Y0(t) diag(y) s + z with fixed Y0; remembers the variables of the sender's map s(w)."""

    def __init__(self, signal: Signal, label: str, stages: int, matrices: list[Matrix]) -> None:
        super().__init__(signal, label, stages)
        self.matrices = matrices
        self.maps: dict[int, Table] = {}

    @property
    def generators(self) -> int:
        """M."""
        return int(self.matrices[-1].shape[1])

    @property
    def scales(self) -> int:
        """Entries of y: one per column."""
        return self.generators

    def scale_bounds(self) -> tuple[float, float]:
        """Columns are stretched, not turned round."""
        return 0.0, np.inf

    def matrix_table(self, y: Integers, columns: Integers, t: int) -> Table:
        """Y0 diag(y) s."""
        row, k = np.nonzero(self.matrices[t])
        return Table(self.n, row, columns[k], y[k], self.matrices[t][row, k])

    def contain_deviation(self, program: RobustProgram, deviation: Table, y: Integers, t: int) -> None:
        """P - z = Y0 sigma(w), abs(sigma(w)) <= y."""
        columns = np.union1d(deviation.columns(), [0])
        index = program.new(self.generators * columns.size).reshape(self.generators, -1)
        sigma = Table.variables(index, columns)
        program.equal_zero(deviation - sigma.left(self.matrices[t]))
        program.robust_abs_le(sigma, Table.variables(y[:, None], [0]))
        self.maps[t] = sigma

    def matrix(self, scale: Vector, t: int) -> Matrix:
        """Y0 diag(y)."""
        return self.matrices[t] * np.maximum(scale, 0.0)


class MatrixForm(_BoxForm):
    """zeta = Y s + z with free Y; the sender's map s(w) is the fixed `maps[t]` (m, columns of the sender's w)."""

    def __init__(self, signal: Signal, label: str, stages: int, maps: dict[int, Matrix]) -> None:
        super().__init__(signal, label, stages)
        self.maps = maps

    @property
    def generators(self) -> int:
        """M."""
        return int(next(iter(self.maps.values())).shape[0])

    @property
    def scales(self) -> int:
        """Entries of Y."""
        return self.n * self.generators

    def scale_bounds(self) -> tuple[float, float]:
        """Free."""
        return -np.inf, np.inf

    def matrix_table(self, y: Integers, columns: Integers, t: int) -> Table:
        """Y s."""
        return Table.variables(y.reshape(self.n, -1), columns)

    def contain_deviation(self, program: RobustProgram, deviation: Table, y: Integers, t: int) -> None:
        """P - z = Y sigma(w) for the fixed map sigma, which stays in the box."""
        grid, sigma = y.reshape(self.n, -1), self.maps[t]
        k, c = np.nonzero(np.abs(sigma) > 1e-12)
        row = np.repeat(np.arange(self.n), k.size)
        image = Table(self.n, row, np.tile(c, self.n), grid[:, k].ravel(), np.tile(sigma[k, c], self.n))
        program.equal_zero(deviation - image)

    def matrix(self, scale: Vector, t: int) -> Matrix:
        """Y."""
        return scale.reshape(self.n, -1)
