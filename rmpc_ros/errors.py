"""The vocabulary of what can go wrong.

Every message names the thing, its value, what is allowed and where it came from. The command line prints it as one
line; a node counts it on /diagnostics. Nothing else of ours is raised on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class RmpcError(Exception):
    """Base of all errors a user can act on."""


class ConfigError(RmpcError):
    """A plant file (or an option) is wrong; the message gives file, line, key, value and what is allowed."""


class DataError(RmpcError):
    """Data cannot be used as given (missing, non-finite, too few, wrong shape)."""


class SetError(RmpcError):
    """An uncertainty set is empty, unbounded or of the wrong dimension."""


class MessageError(RmpcError):
    """A message from the network was refused; the message says which field and why."""


class PromiseError(RmpcError):
    """A forecast set breaks the rules of commitments."""


class SolverError(RmpcError):
    """A solver did not return a checked optimum.

    Attributes
    ----------
    status : str
        The solver's own word.
    details : Mapping[str, Any]
        What helps to find the cause: residuals, a certificate, the offending constraint.
    """

    def __init__(self, message: str, status: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.details: dict[str, Any] = dict(details or {})


class InfeasibleError(SolverError):
    """No point satisfies the constraints; `details` may carry a certificate or the offending constraint."""


class UnboundedError(SolverError):
    """The objective has no bound on the feasible set."""


class NumericalError(SolverError):
    """The solver stopped early or its answer fails the residual check: never used as a solution."""


class IllScaledError(NumericalError):
    """The problem's numbers span too many orders of magnitude to be solved reliably: refused before solving."""
