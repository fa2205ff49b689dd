"""The `learning` section of a plant file, typed: prices, what changes over a campaign, what policies may move.

Money is in the file's own currency; flows and inputs are per hour, as the simulated plant's rates are.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from rmpc_ros.config.sections import Count, Fraction, Limits, Name, NonNegative, Number, Positive, Section


class Product(Section):
    """Income per hour: price * flow * state."""

    state: Name
    flow: Positive  # kg/h of the stream whose fraction `state` is
    price: Positive  # per kg


class Quality(Section):
    """A limit the customer sets, not a safety limit: every hour with `state` above `limit` costs `penalty`."""

    state: Name
    limit: Number
    penalty: NonNegative  # per hour


class Steam(Section):
    """Cost per hour: price * sum of the inputs; emissions: emission_price * emission_factor * sum of the inputs."""

    inputs: Annotated[list[Name], Field(min_length=1)]
    price: NonNegative  # per unit of input * hour (kJ where inputs are kJ/h)
    emission_factor: NonNegative = 0.0  # kg per unit of input * hour
    emission_price: NonNegative = 0.0  # per kg


class Prices(Section):
    """Reward per hour = product - steam - emissions - quality - violation - regeneration."""

    product: Product
    quality: Quality
    steam: Steam
    violation: NonNegative = 0.0  # per hour with a state or input outside its limits
    regeneration: NonNegative = 0.0  # per regeneration of the catalyst


class Catalyst(Section):
    """d a/dt = -decay_per_day exp(sensitivity (mean T - reference)) a; at `floor` it is regenerated to `fresh`."""

    parameter: Name
    fresh: Positive
    floor: Positive
    decay_per_day: NonNegative
    sensitivity: NonNegative  # 1/K
    temperatures: Annotated[list[Name], Field(min_length=1)]
    reference: Number  # K
    harsh: Positive = 2.0  # factor of decay_per_day in the harsh campaign

    @model_validator(mode="after")
    def _ordered(self) -> Catalyst:
        if not self.floor < self.fresh:
            raise ValueError(f"floor = {self.floor:g} must be below fresh = {self.fresh:g}")
        return self


class Suppliers(Section):
    """Deliveries: `disturbance` takes one of `values` for some days, then another one."""

    disturbance: Name
    values: Annotated[list[Number], Field(min_length=1)]
    days: Count = 3


class Market(Section):
    """Factors on prices, drawn anew every day: 1 + an autoregressive process inside `range`."""

    product: Limits = (0.8, 1.2)
    steam: Limits = (0.7, 1.3)
    persistence: Annotated[float, Field(ge=0, lt=1)] = 0.7


class Campaign(Section):
    """One decision a day; `window` control periods of each are simulated, the last `average` of them are counted."""

    days: Count = 21
    window: Count = 24
    average: Count = 12
    catalyst: Catalyst
    suppliers: Suppliers
    market: Market = Market()

    @model_validator(mode="after")
    def _inside(self) -> Campaign:
        if self.average > self.window:
            raise ValueError(f"average = {self.average} periods do not fit into a window of {self.window}")
        return self


Move = Literal["setpoint", "back_off", "economic_weight", "terminal_weight"]
MOVES: tuple[Move, ...] = get_args(Move)
LEAST_MOVES = MOVES[:2]  # every policy has these

Factor = Annotated[float, Field(allow_inf_nan=False, ge=1e-3, le=1e3)]


def _about_one(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] <= 1 <= pair[1]:
        raise ValueError(f"bounds of a factor hold 1, the tuned controller's; here {pair[0]:g} to {pair[1]:g}")
    return pair


Factors = Annotated[tuple[Factor, Factor], Field(strict=False), AfterValidator(_about_one)]


class EconomicWeight(Section):
    """Weight of the economics in the targets, as a factor; 1 is the balance that the file's set-points are."""

    factors: Factors = (0.25, 4.0)
    money: Positive  # per hour that weighs as much as a set-point one unit (squared) away from where it is wished


class TerminalWeight(Section):
    """Scale of the terminal cost of each agent's MPC, as a factor of the design's."""

    factors: Factors = (0.1, 10.0)


class Actions(Section):
    """What a policy may move: per agent one set-point by at most `span`, the back-off from certified sets, weights.

    `moves` is what policies trained for this plant move; a policy may move everything that has its bounds here.
    """

    setpoints: dict[Name, Name]
    span: Positive
    back_off: Fraction = 0.1  # share of the certified authority that targets leave unused
    most_back_off: Fraction = 0.5
    moves: Annotated[tuple[Move, ...], Field(strict=False)] = LEAST_MOVES
    economic_weight: EconomicWeight | None = None
    terminal_weight: TerminalWeight | None = None

    def bounded(self) -> tuple[Move, ...]:
        """Everything that has its bounds here."""
        sections = {"economic_weight": self.economic_weight, "terminal_weight": self.terminal_weight}
        return tuple(move for move in MOVES if move in LEAST_MOVES or sections[move] is not None)

    @field_validator("moves")
    @classmethod
    def _in_order(cls, moves: tuple[Move, ...]) -> tuple[Move, ...]:
        if moves != tuple(move for move in MOVES if move in moves) or not set(LEAST_MOVES) <= set(moves):
            raise ValueError(f"each once, in the order {', '.join(MOVES)}; the first two are always there")
        return moves

    @model_validator(mode="after")
    def _ordered(self) -> Actions:
        if self.back_off > self.most_back_off:
            raise ValueError(f"back_off = {self.back_off:g} is above most_back_off = {self.most_back_off:g}")
        for move in self.moves:
            if move not in self.bounded():
                raise ValueError(f"moves holds {move}, and there is no key '{move}' with its bounds")
        return self


class Online(Section):
    """What the learner does while the plant runs (docs/learner.md); steps are control periods."""

    decide: Count = 10  # steps between two looks of an agent at its policy
    every: Count = 50  # steps between two improvements of sets, models and policies
    settle: Count = 20  # steps after a change that do not count: the plant is on its way
    trial: Count = 40  # steps that count before a canary is judged, and in every later judgement
    sigma: Positive = 2.0  # a fall of the reward counts when it is so many standard errors large
    least_gain: NonNegative = 0.5  # per hour: a policy that is not expected to earn so much more is not tried
    least_margin: Fraction = 0.1  # a policy under which a limit comes nearer than this is rolled back
    plan_hours: Positive = 24.0  # between two economic plans, where the learner has one
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.05  # promise of the learned sets: share of residuals outside
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9
    inflation: Annotated[Number, Field(ge=1)] = 1.2  # learned sets are larger than their promise needs by this factor


class Learning(Section):
    """What learning on top of the controllers needs to know about a plant; campaigns are for `rmpc train`."""

    prices: Prices
    actions: Actions
    campaign: Campaign | None = None
    online: Online = Online()


class CampaignLearning(Learning):
    """A section with campaigns."""

    campaign: Campaign
