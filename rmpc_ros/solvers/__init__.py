"""Access to optimisation solvers: one file per problem class, each answer checked before it is returned.

This room lies below all others: sets need linear and conic programs for their support functions.
"""
