"""Who affects whom: a directed graph in which an arc j -> i says that a signal of agent j enters agent i's model.

    neighbours(i) = N_i = { j : j -> i },   precedents(i) = all agents from which a directed path leads to i.

Pure combinatorics on agent numbers 0..M-1; sources: Darivianakis, Georghiou, Lygeros (seeds 002 and 004), section 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from rmpc_ros.errors import ConfigError

Arc = tuple[int, int]


@dataclass(frozen=True)
class Graph:
    """A directed graph without self-loops.

    Attributes
    ----------
    size : number of agents M.
    arcs : pairs (sender, receiver).

    Examples
    --------
    >>> g = Graph(3, ((0, 1), (1, 2)))
    >>> g.neighbours(2), g.precedents(2), g.is_bipartite_of_depth_one()
    ((1,), (0, 1), False)
    """

    size: int
    arcs: tuple[Arc, ...]

    def __post_init__(self) -> None:
        clean = tuple(sorted(set(self.arcs)))
        for sender, receiver in clean:
            if sender == receiver:
                raise ConfigError(f"graph: agent {sender} has an arc to itself; its own coupling is its matrix A")
            if not (0 <= sender < self.size and 0 <= receiver < self.size):
                raise ConfigError(f"graph: arc ({sender}, {receiver}) leaves the agents 0..{self.size - 1}")
        object.__setattr__(self, "arcs", clean)

    def neighbours(self, agent: int) -> tuple[int, ...]:
        """Agents whose signals enter `agent`'s model (N_i), ascending."""
        return tuple(j for j, i in self.arcs if i == agent)

    def followers(self, agent: int) -> tuple[int, ...]:
        """Agents whose model `agent`'s signals enter, ascending."""
        return tuple(i for j, i in self.arcs if j == agent)

    @cached_property
    def _reach(self) -> tuple[frozenset[int], ...]:
        """For each agent the set from which it can be reached (itself excluded unless on a cycle)."""
        into = [set(self.neighbours(i)) for i in range(self.size)]
        changed = True
        while changed:
            changed = False
            for i in range(self.size):
                grown = into[i].union(*(into[j] for j in into[i])) if into[i] else into[i]
                if grown != into[i]:
                    into[i], changed = grown, True
        return tuple(frozenset(s) for s in into)

    def precedents(self, agent: int) -> tuple[int, ...]:
        """All agents whose inputs can reach `agent` some time later, itself left out, ascending."""
        return tuple(sorted(self._reach[agent] - {agent}))

    def is_bipartite_of_depth_one(self) -> bool:
        """Whether no agent both receives and sends: there nested = local (seed 004, proposition 1)."""
        return not ({j for j, _ in self.arcs} & {i for _, i in self.arcs})

    def colours(self) -> tuple[int, ...]:
        """Greedy colouring in breadth-first order, (M,): agents of one colour share no arc and may solve together.

        Two colours wherever two suffice, because breadth-first layers alternate.
        """
        around = [sorted({*self.neighbours(i), *self.followers(i)}) for i in range(self.size)]
        colour = [-1] * self.size
        for root in range(self.size):
            queue = [root] if colour[root] < 0 else []
            while queue:
                i = queue.pop(0)
                if colour[i] >= 0:
                    continue
                taken = {colour[j] for j in around[i]}
                colour[i] = next(c for c in range(self.size) if c not in taken)
                queue += [j for j in around[i] if colour[j] < 0]
        return tuple(colour)

    @staticmethod
    def undirected(size: int, edges: Iterable[Arc]) -> Graph:
        """Graph with both arcs of each edge."""
        pairs = list(edges)
        return Graph(size, tuple(pairs + [(b, a) for a, b in pairs]))


def topology(name: str, size: int) -> Graph:
    """Undirected standard topologies: chain, ring, star (centre 0), mesh (rectangular grid), complete.

    Raises
    ------
    ConfigError
        The name is unknown or the size below 2.
    """
    if size < 2:
        raise ConfigError(f"topology '{name}': {size} agents; at least 2")
    match name:
        case "chain":
            edges = [(i, i + 1) for i in range(size - 1)]
        case "ring":
            edges = [(i, (i + 1) % size) for i in range(size)] if size > 2 else [(0, 1)]
        case "star":
            edges = [(0, i) for i in range(1, size)]
        case "mesh":
            width = max(2, round(size**0.5))  # the last row of the grid may be shorter
            edges = [(i, i + 1) for i in range(size - 1) if (i + 1) % width]
            edges += [(i, i + width) for i in range(size - width)]
        case "complete":
            edges = [(i, j) for i in range(size) for j in range(i + 1, size)]
        case _:
            raise ConfigError(f"topology '{name}' is unknown; known: chain, ring, star, mesh, complete")
    return Graph.undirected(size, edges)
