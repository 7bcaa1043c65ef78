"""``python -m scaling.evals.laptop --out tokens/laptop``."""
