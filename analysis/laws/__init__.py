"""Laws: terms that compose (``terms``), what follows from L(N, D) in closed form (``allocation``).

from analysis.laws import CHINCHILLA, constant, power
mine = (constant("E") + power("A", "N", "alpha") + power("B", "D", "beta")).named("mine")
"""

from analysis.laws.allocation import (
    Cost,
    OverTraining,
    allocation_exponent,
    has_allocation,
    measured_cost,
    optimum,
    over_training,
    tokens_for,
    tokens_per_param,
)
from analysis.laws.terms import (
    CHINCHILLA,
    COMPUTE,
    COMPUTE_POWER,
    COUPLED,
    DATA,
    KAPLAN,
    KAPLAN_NO_FLOOR,
    LAWS,
    PARAMS,
    SURFACES,
    TIED,
    Law,
    Term,
    constant,
    coupled,
    power,
    symbol,
)

__all__ = [
    "CHINCHILLA", "COMPUTE", "COMPUTE_POWER", "COUPLED", "DATA", "KAPLAN", "KAPLAN_NO_FLOOR", "LAWS", "PARAMS", "SURFACES",
    "TIED", "Cost", "Law", "OverTraining", "Term", "allocation_exponent", "constant", "coupled", "has_allocation",
    "measured_cost", "optimum", "over_training", "power", "symbol", "tokens_for", "tokens_per_param",
]  # fmt: skip
