"""The `adaptation` and `estimator` sections of a plant file: what an agent learns and estimates while it runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rmpc_ros.config.sections import Count, Name, NonNegative, Number, Positive, Section

Share = Annotated[float, Field(allow_inf_nan=False, gt=0, lt=1)]


class Adaptation(Section):
    """The learning loop of each agent (docs/online_sets.md): residuals -> calibrated set and mean -> controller."""

    coverage: Share = 0.995  # long-run share of one-step residuals inside the set in force
    gamma: Share = 0.003  # step of the adaptive conformal recursion; below 1 - coverage one miss is no infinite radius
    window: Annotated[int, Field(ge=50)] = 300  # residuals kept
    least: Annotated[int, Field(ge=20)] = 100  # residuals before the first set, and after a drift
    every: Count = 5  # steps between adoptions; growth does not wait
    inflation: Annotated[Number, Field(ge=1)] = 1.15  # on the calibrated radius
    rate: Positive = 0.1  # most that a bound of the set moves inwards per adoption, as a share of the design's
    model: Literal["none", "linear"] = "none"  # learned mean of the residual, which moves the set in every step
    forgetting: Share = 0.995
    certify: Count = 50  # steps between two judgements of the learned mean
    gain: Share = 0.9  # its errors must be below this share of the present ones on held-out steps
    change: Positive = 0.25  # most it may move a prediction at once, as a share of the design's half-width
    outlier: Annotated[Number, Field(ge=1)] = 2.0  # residuals beyond so many design half-widths teach nothing


class Estimator(Section):
    """Each agent's state estimator for partial, missing and faulty measurements (docs/hybrid_models.md)."""

    kind: Literal["ekf", "mhe"] = "ekf"
    horizon: Count = 5  # periods of the moving-horizon estimator
    disturbances: Annotated[tuple[Name, ...], Field(strict=False)] = ()  # estimated as states that drift
    drift: Positive = 0.15  # their standard deviation per period, as a share of the distance to their bounds
    process: Positive = 0.5  # standard deviation of the model's one-step error, as a share of the sensor noise
    start: Positive = 0.02  # standard deviation of the first state, as a share of half its range
    every: dict[Name, Count] = Field(default_factory=dict)  # steps between two readings of a state, where not 1
    error: dict[Name, NonNegative] = Field(default_factory=dict)  # bound of |state used - true state|: tightens limits
