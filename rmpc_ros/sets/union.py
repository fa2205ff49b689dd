"""Unions of convex subsets: U = U_1 or ... or U_K, fitted by clusters (seed 001, section 3).

A linear constraint sees only the convex hull: support(a) = max_k support_k(a). Membership, and two-stage problems, see
the union itself: its mixed-integer description (math.md 1.3) needs each subset as D_k u <= d_k, see `halfspaces`.

Clusters come from a Bayesian Gaussian mixture, which switches off the components it does not need, or from density
clustering (HDBSCAN). Each subset is an ellipsoid, or a polytope whose faces lie across the axes and the cluster's
principal axes. One factor theta scales all subsets about their centres; it is calibrated by order statistics of
min_k gauge_k(u), so that the union carries the same promise as any other calibrated set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import DataError, SetError
from rmpc_ros.sets.base import ConicForm, Kind, Matrix, UncertaintySet, Vector
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.calibrate import calibrate, split_rows
from rmpc_ros.sets.certificate import Certificate, FittedSet
from rmpc_ros.sets.fit import FitOptions, fitter
from rmpc_ros.sets.polytope import Polytope
from rmpc_ros.sets.quantile import Shape, ellipsoid_shape
from rmpc_ros.sets.svc import membership_promise
from rmpc_ros.solvers.conic import Cone


class UnionSet(UncertaintySet):
    """U = U_1 or ... or U_K;  support(a) = max_k support_k(a).

    `conic` describes the convex hull (exact for linear constraints); `contains`, `sample` and `locate` are about the
    union.

    Parameters
    ----------
    parts : non-empty sets of one dimension
    """

    family: ClassVar[str] = "union"

    def __init__(self, parts: Sequence[UncertaintySet]) -> None:
        self.parts = tuple(parts)
        dims = {p.dim for p in self.parts}
        if len(dims) != 1:
            raise SetError(f"a union needs at least one set, all of one dimension; got dimensions {sorted(dims)}")

    @property
    def dim(self) -> int:
        """Dimension d."""
        return self.parts[0].dim

    def center(self) -> Vector:
        """Mean of the subsets' centres: in the hull, perhaps not in the union."""
        return np.asarray(np.mean([p.center() for p in self.parts], axis=0))

    def conic(self) -> ConicForm:
        """Convex hull: u = sum u_k, F_k u_k + G_k y_k + s_k = h_k l_k, sum l = 1, l >= 0 (Balas)."""
        forms = [p._form for p in self.parts]
        d, count = self.dim, len(forms)
        columns = [
            sparse.hstack([f.F, f.G, sparse.csc_array(-f.h[:, None])], format="csc") for f in forms
        ]  # one block of variables (u_k, y_k, l_k) for each subset
        picks = sparse.hstack(
            [sparse.hstack([-sparse.eye_array(d), sparse.csc_array((d, f.G.shape[1] + 1))]) for f in forms]
        )
        last = sparse.hstack(
            [sparse.hstack([sparse.csc_array((1, d + f.G.shape[1])), sparse.csc_array([[1.0]])]) for f in forms]
        )
        signs = sparse.block_diag(
            [sparse.hstack([sparse.csc_array((1, d + f.G.shape[1])), sparse.csc_array([[-1.0]])]) for f in forms]
        )
        G = sparse.vstack([picks, last, signs, sparse.block_diag(columns)], format="csc")
        F = sparse.vstack([sparse.eye_array(d), sparse.csc_array((G.shape[0] - d, d))], format="csc")
        h = np.zeros(G.shape[0])
        h[d] = 1.0
        cones = [Cone("zero", d + 1), Cone("nonnegative", count)]
        for f in forms:
            cones.extend(f.cones)
        return ConicForm(F, sparse.csc_array(G), h, tuple(cones))

    def support(self, directions: ArrayLike) -> Vector:
        """Largest support of the subsets."""
        rows = self._directions(directions)
        return self._shape(np.max([np.asarray(p.support(rows)) for p in self.parts], axis=0), directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """Maximisers of the subset with the largest support."""
        rows = self._directions(directions)
        best = np.argmax([np.asarray(p.support(rows)) for p in self.parts], axis=0)
        points = np.array([p.maximisers(rows) for p in self.parts])
        return self._shape(points[best, np.arange(len(rows))], directions)

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """Membership in any subset."""
        return np.asarray(np.any([p.contains(points, tolerance) for p in self.parts], axis=0))

    def locate(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.intp]:
        """Index of the first subset that holds each row, -1 for none: (m, d) -> (m,)."""
        inside = np.array([np.atleast_1d(p.contains(self._directions(points), tolerance)) for p in self.parts])
        return np.where(inside.any(axis=0), inside.argmax(axis=0), -1)

    def halfspaces(self) -> list[tuple[Matrix, Vector]]:
        """(D_k, d_k) of every subset, for  v = sum v_k, D_k v_k <= d_k b_k, sum b = 1, b binary.

        Raises
        ------
        SetError
            A subset is not a box or polytope in the space of u.
        """
        out = []
        for n, part in enumerate(self.parts):
            form = part._form
            if form.G.shape[1] or any(c.kind != "nonnegative" for c in form.cones):
                raise SetError(f"subset {n} of family '{part.family}' has no half-spaces; use boxes or polytopes")
            out.append((np.asarray(form.F.toarray(), float), np.array(form.h)))
        return out

    def sample(self, count: int, rng: int | np.random.Generator, kind: Kind = "interior") -> Matrix:
        """Samples of subsets drawn with equal probability; "boundary": of the subsets' boundaries."""
        generator = np.random.default_rng(rng)
        chosen = generator.integers(len(self.parts), size=count)
        points = np.empty((count, self.dim))
        for n, part in enumerate(self.parts):
            here = np.flatnonzero(chosen == n)
            if here.size:
                points[here] = part.sample(here.size, generator, kind)
        return points

    def scaled(self, factor: float) -> UnionSet:
        """Every subset scaled about its own centre."""
        return UnionSet([p.scaled(factor) for p in self.parts])

    def vertices(self) -> Matrix:
        """The subsets' vertices, one list."""
        return np.vstack([p.vertices() for p in self.parts])

    def parameters(self) -> dict[str, Any]:
        """The subsets."""
        return {"parts": [p.to_dict() for p in self.parts]}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> UnionSet:
        """Inverse of `parameters`."""
        return cls([UncertaintySet.from_dict(p) for p in parameters["parts"]])


def polytope_shape(data: Matrix) -> Shape:
    """{ D u <= d } with faces across the axes and the principal axes, touching the samples."""
    axes = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)[2]
    rows = np.vstack([np.eye(data.shape[1]), axes]) if data.shape[1] > 1 else np.eye(1)
    D = np.vstack([rows, -rows])
    reach = np.max(data @ D.T, axis=0)
    center = data.mean(axis=0)
    room = reach - D @ center
    if np.any(room <= 0):
        raise DataError("a cluster is flat: its samples span no volume; lower k_max or raise min_share")
    return Shape(
        lambda points: np.max((points - center) @ D.T / room, axis=1),
        lambda theta: Polytope(D, D @ center + theta * room),
    )


def mixture_labels(data: Matrix, k_max: int, least: int, seed: int) -> NDArray[np.intp]:
    """Labels of a Bayesian mixture; components with fewer than `least` samples give theirs to the others."""
    from sklearn.mixture import BayesianGaussianMixture

    scale = data.std(axis=0)
    model = BayesianGaussianMixture(
        n_components=min(k_max, len(data)),
        weight_concentration_prior_type="dirichlet_process",
        weight_concentration_prior=1e-2,
        max_iter=500,
        random_state=seed,
    ).fit(data / scale)
    share = model.predict_proba(data / scale)
    kept = np.flatnonzero(np.bincount(share.argmax(axis=1), minlength=share.shape[1]) >= least)
    if kept.size == 0:
        raise DataError(f"mixture: no component has {least} samples; lower k_max or min_share")
    return np.asarray(share[:, kept].argmax(axis=1))


def density_labels(data: Matrix, least: int) -> NDArray[np.intp]:
    """Labels of HDBSCAN; -1 marks noise, which shapes no subset."""
    from sklearn.cluster import HDBSCAN

    labels = HDBSCAN(min_cluster_size=max(least, 2), allow_single_cluster=True, copy=True).fit_predict(
        data / data.std(axis=0)
    )
    if labels.max() < 0:
        raise DataError(f"density clustering: no cluster of {least} samples; lower min_share")
    return np.asarray(labels)


@fitter("union", "clusters", "subsets", "k_max", "min_share", "n_calibration")
def fit_union(data: Matrix, options: FitOptions) -> FittedSet:
    """Fit and calibrate a union.

    Parameters `clusters` (mixture, density), `subsets` (polytope, ellipsoid), `k_max` (most components of the mixture,
    default 8), `min_share` (least share of the samples in a cluster, default .05), `n_calibration` (0: none).

    Raises
    ------
    DataError
        Parameters out of range, no cluster, or too few samples.
    """
    how = options.word("clusters", "mixture", ("mixture", "density"))
    what = options.word("subsets", "polytope", ("polytope", "ellipsoid"))
    k_max, share = int(options.number("k_max", 8)), options.number("min_share", 0.05)
    if k_max < 1 or not 0 < share < 1:
        raise DataError(f"k_max = {k_max}, min_share = {share}: give k_max >= 1 and min_share in (0, 1)")
    count = int(options.number("n_calibration")) if options.has("n_calibration") else None
    d = data.shape[1]
    if count == 0:
        train, fresh = data, data[:0]
    else:
        rows = split_rows(len(data), 2 * (d + 2), options.epsilon, options.confidence, options.seed, count)
        train, fresh = data[rows.shape], data[rows.calibration]
    least = max(d + 2, int(np.ceil(share * len(train))))
    labels = mixture_labels(train, k_max, least, options.seed) if how == "mixture" else density_labels(train, least)
    learn = polytope_shape if what == "polytope" else ellipsoid_shape
    shapes = [learn(train[labels == k]) for k in range(labels.max() + 1) if np.any(labels == k)]

    def score(points: Matrix) -> Vector:
        return np.asarray(np.min([s.gauge(points) for s in shapes], axis=0))

    counts = np.bincount(labels[labels >= 0])
    thresholds: dict[str, Any] = {"subsets": len(shapes), "samples_per_subset": counts[counts > 0].tolist()}
    if count == 0:
        theta = float(np.quantile(score(train), 1 - options.epsilon, method="higher"))
        certificate = Certificate(
            "union",
            None,
            None,
            len(data),
            f"{how} clusters, not calibrated",
            thresholds | {"theta": theta},
            options.window,
            "No promise: calibrate the set on fresh samples for a guarantee.",
            options.columns,
        )
    else:
        level = calibrate(score(fresh), options.epsilon, options.confidence)
        theta = level.level
        thresholds |= {"theta": theta, "k": level.index, "n_calibration": level.samples}
        thresholds["attained_confidence"] = level.attained_confidence
        certificate = options.certificate(
            "union", data, f"{how} clusters; order statistics (binomial tail)", thresholds, membership_promise(options)
        )
    return FittedSet(UnionSet([s.build(theta) for s in shapes]), certificate)


def union_of_boxes(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> UnionSet:
    """Union of boxes given as (lower, upper) pairs."""
    return UnionSet([Box(lower, upper) for lower, upper in pairs])
