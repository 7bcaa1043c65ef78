"""The two-step downstream law: (N, D) → task loss → accuracy, with intervals (``python -m analysis.downstream``)."""

from analysis.downstream.steps import OLMO, Chain, Forecast, Recipe, chain, forecast, forecast_json, leave_largest_out, predict
from analysis.downstream.tables import Run, Task, asked, of_csv, of_runs, shipped

__all__ = [
    "OLMO", "Chain", "Forecast", "Recipe", "Run", "Task", "asked", "chain", "forecast", "forecast_json", "leave_largest_out",
    "of_csv", "of_runs", "predict", "shipped",
]  # fmt: skip
