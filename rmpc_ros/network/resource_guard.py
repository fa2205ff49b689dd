"""The header's own side: it keeps the book too, and cuts every input at the share that the book gives its agent.

So the resource's capacity holds whatever an agent commands. Who asks for more than its share is named, and so is who
states what cannot be true, or has stopped stating anything; who behaves again is cleared after a time (`accusations`).
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.errors import PromiseError
from rmpc_ros.mpc.local import Vector
from rmpc_ros.network.accusations import Accusations
from rmpc_ros.network.resource_user import SILENT
from rmpc_ros.network.shared_resource import DELAY, Book, ResourceDesign, Statement

TOLERANCE = 1e-5  # of the capacity: a command is met up to the solver's tolerance


class Guard:
    """Book and cut of one resource.

    Parameters
    ----------
    design : of the resource
    horizon : of the agents' statements

    Attributes
    ----------
    accused : who has asked for too much, or stated what cannot be
    largest : largest use of all users together so far
    use : of the newest step
    cuts : how often an agent's input was cut by more than rounding, by agent
    """

    def __init__(self, design: ResourceDesign, horizon: int) -> None:
        self.design = design
        self.book = Book(design, horizon)
        self.accused = Accusations()
        self.cuts = dict.fromkeys(design.users, 0)
        self.largest = self.use = 0.0
        self._heard = dict.fromkeys(design.users, 0)

    def hear(self, said: Statement) -> None:
        """A user's statement.

        Raises
        ------
        PromiseError
            A lie: not used, its sender named.
        """
        try:
            self.book.hear(said)
        except PromiseError as error:
            self.accused.name(said.agent, self.book.step, str(error))
            raise
        self._heard[said.agent] = max(said.step, self._heard[said.agent])

    @property
    def suspects(self) -> dict[str, str]:
        """Who was named, and who has stopped stating its use and not begun again."""
        silent = {
            user: f"'{user}' has not stated its use of {self.design.name} for {SILENT} steps"
            for user, step in self._heard.items()
            if self.book.step - step > SILENT + DELAY
        }
        return silent | self.accused.reasons

    def cut(self, step: int, inputs: dict[str, Vector]) -> dict[str, Vector]:
        """Inputs (nu,) of all agents for a step, physical, as they may be applied."""
        design, out = self.design, dict(inputs)
        self.book.advance(step)
        self.accused.advance(step)
        shares = self.book.shares()[:, 0]
        self.use = 0.0
        for i, user in enumerate(design.users):
            n, limit = design.inputs[i], float(shares[i] / design.weights[i])
            u = np.array(inputs[user], float)
            over = design.weights[i] * (u[n] - limit)
            if over > 0:
                u[n] = limit
                if over > TOLERANCE * design.capacity:
                    self.cuts[user] += 1
                    self.accused.name(
                        user,
                        step,
                        f"'{user}' commands {over + shares[i]:.6g} {design.unit} of {design.name}; its share is "
                        f"{shares[i]:.6g}",
                    )
            out[user] = u
            self.use += float(design.weights[i] * u[n])
        for user in self.book.unproven:
            self.accused.name(user, step, f"'{user}' rests on gifts of {design.name} that nobody has made")
        self.largest = max(self.largest, self.use)
        return out
