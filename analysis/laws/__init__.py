"""Laws: terms that compose (``terms``), what follows from L(N, D) in closed form (``allocation``), and forms that are no sum of
powers (``formula``): repeated data, broken power laws, whole curves under a schedule, tuning, downstream error.

from analysis.laws import CHINCHILLA, constant, power
mine = (constant("E") + power("A", "N", "alpha") + power("B", "D", "beta")).named("mine")
"""

from analysis.laws.allocation import (
    Cost,
    OverTraining,
    allocation_exponent,
    has_allocation,
    measured_cost,
    needed_flops,
    optimum,
    over_training,
    tokens_for,
    tokens_per_param,
)
from analysis.laws.annealing import ANNEALING, ANNEALING_SIZES, schedule_areas
from analysis.laws.broken import broken_power
from analysis.laws.formula import Formula, not_identified
from analysis.laws.overtraining import ERROR, gadre_form, tied_form
from analysis.laws.repeats import MUENNIGHOFF, REPEATS, effective_tokens, epochs_until, worth_of_next
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
from analysis.laws.tuning import DEEPSEEK_BATCH, DEEPSEEK_LR, STEP_BATCH, STEP_LR, TuningLaw, as_tuning_law, tuning_law

__all__ = [
    "ANNEALING", "ANNEALING_SIZES", "CHINCHILLA", "COMPUTE", "COMPUTE_POWER", "COUPLED", "DATA", "DEEPSEEK_BATCH",
    "DEEPSEEK_LR", "ERROR", "KAPLAN", "KAPLAN_NO_FLOOR", "LAWS", "MUENNIGHOFF", "PARAMS", "REPEATS", "STEP_BATCH", "STEP_LR",
    "SURFACES", "TIED", "Cost", "Formula", "Law", "OverTraining", "Term", "TuningLaw", "allocation_exponent", "as_tuning_law",
    "broken_power", "constant", "coupled", "effective_tokens", "epochs_until", "gadre_form", "has_allocation", "measured_cost",
    "needed_flops", "not_identified", "optimum", "over_training", "power", "schedule_areas", "symbol", "tied_form",
    "tokens_for", "tokens_per_param", "tuning_law", "worth_of_next",
]  # fmt: skip
