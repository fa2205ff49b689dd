"""Two agents, one stage:  x1 = B u1 + E xi1,  x2 = B u2 + E xi2 + D x1  (seed 002 section 5.1, seed 004 section 5.1).

min max c'x1 + max c'x2 with norm_inf(x) <= 8, abs(u) <= 4 and xi in the unit box; policies see their current xi.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.network.model import Agent, Constraint, Cost, Coupling, Disturbance, Network, Signal

C = np.array([[1.0, -1.0]])
B = np.array([[1.0], [0.8]])
E = np.array([[1.0, -1.0], [-1.0, 1.0]])
D = np.array([[1.0, 0.0], [0.0, -2.0]])
STATE_BOUND, INPUT_BOUND = 8.0, 4.0


def toy_network() -> Network:
    """The network of the example; agent 1's signal "x" is its state of the same stage."""
    bounds = (
        Constraint(np.eye(2), None, np.full(2, STATE_BOUND), np.full(2, -STATE_BOUND), first=1),
        Constraint(None, np.eye(1), np.full(1, INPUT_BOUND), np.full(1, -INPUT_BOUND)),
    )

    def agent(name: str, couplings: tuple[Coupling, ...] = (), signals: tuple[Signal, ...] = ()) -> Agent:
        return Agent(
            name,
            A=np.zeros((2, 2)),
            D=B,
            E=E,
            x0=np.zeros(2),
            disturbance=Disturbance.box([-1, -1], [1, 1]),
            couplings=couplings,
            signals=signals,
            constraints=bounds,
            costs=(Cost("max", Mx=C, first=1),),
            sees_current=True,
        )

    first = agent("agent1", signals=(Signal("x", F=B, G=E),))
    return Network((first, agent("agent2", couplings=(Coupling(0, "x", D),))), horizon=1)
