"""Deciding under uncertainty: policies, robust counterparts, column-and-constraint generation, ambiguity."""
