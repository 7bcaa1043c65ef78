"""A laptop's MMLU: a generated suite of 12 subjects in 4 groups, and the text to learn them from.  Imports no jax."""

from scaling.evals.laptop.store import DEFAULTS, OUT, Spec, build
from scaling.evals.laptop.subjects import SUBJECTS, suite

__all__ = ["DEFAULTS", "OUT", "SUBJECTS", "Spec", "build", "suite"]
