"""From data to a set with a certificate: `fit_set(data, family, epsilon, confidence)`.

Each family's file registers its fitter here with `@fitter(name, *parameters)`; the fitter gets checked data and the
options, and returns a `FittedSet` or raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.sets import load_families
from rmpc_ros.sets.certificate import Certificate, FittedSet
from rmpc_ros.sets.data import check_data, check_level

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class FitOptions:
    """What a fitter may ask for besides the data.

    Attributes
    ----------
    epsilon : accepted probability of violation, in (0, 1)
    confidence : 1 - alpha, in (0, 1)
    columns : names of the components
    parameters : explicit values by name (`--param`); they replace the computed ones
    seed : of everything random in the fit (bootstrap, simulated critical values)
    window : first and last row used, counted from 1
    """

    epsilon: float = 0.1
    confidence: float = 0.9
    columns: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    window: tuple[int, int] = (1, 1)

    @property
    def alpha(self) -> float:
        """1 - confidence."""
        return 1.0 - self.confidence

    def has(self, name: str) -> bool:
        """Whether `name` was given explicitly."""
        return name in self.parameters

    def number(self, name: str, default: float | None = None) -> float:
        """One explicit number, or the default."""
        value = self.parameters.get(name, default)
        if isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
            raise DataError(f"parameter {name} = {value!r}: give one finite number")
        return float(value)

    def vector(self, name: str, size: int) -> Vector:
        """Explicit list of `size` numbers (one number stands for all)."""
        try:
            values = np.atleast_1d(np.asarray(self.parameters[name], float))
        except (TypeError, ValueError):
            raise DataError(f"parameter {name} = {self.parameters[name]!r}: give {size} numbers") from None
        if values.size == 1:
            values = np.full(size, values[0])
        if values.size != size or not np.all(np.isfinite(values)):
            raise DataError(f"parameter {name} has {values.size} entries: give {size} finite numbers")
        return values

    def word(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        """One explicit word among `allowed`."""
        value = str(self.parameters.get(name, default)).lower()
        if value not in allowed:
            raise DataError(f"parameter {name} = {value!r}: give one of {', '.join(allowed)}")
        return value

    def box(self, data: Matrix) -> tuple[Vector, Vector] | None:
        """Known support `box=lo1,hi1,lo2,hi2,...` as (lower, upper); None without it.

        Raises
        ------
        DataError
            Wrong length, an empty interval, or a sample outside: then the box is not a support.
        """
        if "box" not in self.parameters:
            return None
        d = data.shape[1]
        ends = self.vector("box", 2 * d).reshape(d, 2)
        lower, upper = ends[:, 0].copy(), ends[:, 1].copy()
        names = self.columns or tuple(f"column {i + 1}" for i in range(d))
        for i in range(d):
            if not lower[i] < upper[i]:
                raise DataError(f"box of {names[i]}: [{lower[i]}, {upper[i]}] is empty; give lower < upper")
            outside = np.flatnonzero((data[:, i] < lower[i]) | (data[:, i] > upper[i]))
            if outside.size:
                raise DataError(
                    f"row {outside[0] + 1}, {names[i]} = {data[outside[0], i]!r} lies outside the known support "
                    f"[{lower[i]}, {upper[i]}]; widen box or remove the row"
                )
        return lower, upper

    def refuse_outside(self, data: Matrix, outside: NDArray[np.bool_], reason: str) -> None:
        """Refuse the first row for which `outside` holds."""
        rows = np.flatnonzero(outside)
        if rows.size:
            raise DataError(
                f"row {rows[0] + 1} ({', '.join(self.columns)}) = {data[rows[0]].tolist()}: {reason}; "
                "correct the bound or remove the row"
            )

    def promise(self, assumption: str) -> str:
        """The sentence of the hypothesis-test families: Bertsimas, Gupta, Kallus, section 3."""
        return (
            f"With confidence {self.confidence:g} over the data, any linear constraint that holds on the whole set is "
            f"violated with probability at most {self.epsilon:g}; assumes independent samples from one distribution, "
            f"and that {assumption}."
        )

    def certificate(
        self,
        family: str,
        data: Matrix,
        test: str,
        thresholds: Mapping[str, Any],
        statement: str,
        *notes: str,
        given: tuple[str, ...] = (),
    ) -> Certificate:
        """Certificate with the fields that every family fills alike.

        `given` names the thresholds that may be explicit: with one of them the data no longer carry the confidence.
        """
        plain = {k: v.tolist() if isinstance(v, (np.ndarray, np.generic)) else v for k, v in thresholds.items()}
        confidence: float | None = self.confidence
        explicit = [name for name in given if self.has(name)]
        if explicit:
            confidence = None
            test = f"given by hand: {', '.join(explicit)}"
            statement = (
                f"The thresholds {', '.join(explicit)} were given, not computed: IF the true distribution lies in the "
                f"region they describe, any linear constraint that holds on the whole set is violated with probability "
                f"at most {self.epsilon:g}."
            )
        return Certificate(
            family, self.epsilon, confidence, len(data), test, plain, self.window, statement, self.columns, 1, notes
        )


def component_level(alpha: float, dim: int) -> float:
    """Alpha' = 1 - (1 - alpha)^(1/d): the level of each of d independent components."""
    return float(-np.expm1(np.log1p(-alpha) / dim))


def need_samples(family: str, samples: int, needed: int, options: FitOptions) -> None:
    """Refuse fewer samples than a family can work with."""
    if samples < needed:
        raise DataError(
            f"family {family}: {samples} samples for {len(options.columns)} columns at epsilon {options.epsilon:g} and "
            f"confidence {options.confidence:g}; {needed} samples are needed"
        )


Fitter = Callable[[Matrix, FitOptions], FittedSet]
FITTERS: dict[str, Fitter] = {}
FITTER_PARAMETERS: dict[str, tuple[str, ...]] = {}
DISCRETE: set[str] = set()
# families whose promise is about every linear constraint, P(a'u <= support(a)) >= 1 - epsilon for all a
HYPOTHESIS_TESTS = ("chi2", "g", "i", "fb", "m", "lcx", "cs", "dy")


def fitter(name: str, *parameters: str, discrete: bool = False) -> Callable[[Fitter], Fitter]:
    """Register the fitter of a family and the names of its explicit parameters.

    Parameters
    ----------
    name : as users write it after `--family`
    parameters : names that `--param` takes
    discrete : the family is made for repeated rows (a finite support)
    """

    def register(function: Fitter) -> Fitter:
        FITTERS[name] = function
        FITTER_PARAMETERS[name] = parameters
        if discrete:
            DISCRETE.add(name)
        return function

    return register


_COMMON = ("duplicates", "seed")


def fit_set(
    data: ArrayLike,
    family: str = "auto",
    epsilon: float = 0.1,
    confidence: float = 0.9,
    *,
    columns: tuple[str, ...] | None = None,
    parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    window: tuple[int, int] | None = None,
) -> FittedSet:
    """Fit a set to data (N, d) and certify it.

    Parameters
    ----------
    data : (N, d) samples, one per row
    family : a name in `FITTERS`, or "auto": the family of least cross-validated loss (see `choose.choose_family`)
    epsilon : accepted probability of violation, in (0, 1)
    confidence : probability over the data that the promise holds, in (0, 1)
    columns : names of the components, for messages and the certificate
    parameters : explicit values that replace computed ones, by name
    seed : of everything random in the fit
    window : first and last row of the source, counted from 1

    Raises
    ------
    DataError
        Bad data, an unknown family or parameter, or too few samples (the message says how many are needed).
    """
    load_families()
    given = dict(parameters or {})
    name = family.lower()
    if name != "auto" and name not in FITTERS:
        raise DataError(f"family {family!r} is unknown; known: auto, {', '.join(sorted(FITTERS))}")
    check_level("epsilon", epsilon)
    check_level("confidence", confidence)
    known = set(_COMMON).union(*FITTER_PARAMETERS.values()) if name == "auto" else {*_COMMON, *FITTER_PARAMETERS[name]}
    for key in given:
        if key not in known:
            raise DataError(f"family {name} takes no parameter {key!r}; known: {', '.join(sorted(known))}")
    allow = name == "auto" or name in DISCRETE or str(given.pop("duplicates", "refuse")) == "allow"
    rows, names = check_data(data, columns, allow_duplicates=allow)
    options = FitOptions(
        epsilon,
        confidence,
        names,
        given,
        int(given.pop("seed", seed)),
        window or (1, len(rows)),
    )
    if name == "auto":
        from rmpc_ros.sets.choose import choose_family

        name, note = choose_family(rows, options)
        fitted = FITTERS[name](rows, replace(options, parameters=_only(options.parameters, name)))
        return fitted.with_notes(note)
    return FITTERS[name](rows, options)


def _only(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {k: v for k, v in parameters.items() if k in FITTER_PARAMETERS[name]}
