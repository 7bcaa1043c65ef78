"""The published tables that the package ships, as abilities; sources in ``data/README.md``."""

from __future__ import annotations

import csv
import dataclasses
import math
import pathlib
from collections.abc import Iterable, Mapping

from analysis.emergence.points import ACCURACY, EXACT, Point, Shown, ability

DATA = pathlib.Path(__file__).parent / "data"
GPT3, OLMO, PUBLIC = "GPT-3", "OLMo ladder", "public models"
FEW = {"CL": 100, "A1": 100, "A2": 100, "RI": 100, "RW": 100}  # shots of 'few'; 50 elsewhere
NAMES = {
    "2D+": "2-digit addition", "2D-": "2-digit subtraction", "3D+": "3-digit addition", "3D-": "3-digit subtraction",
    "4D+": "4-digit addition", "4D-": "4-digit subtraction", "5D+": "5-digit addition", "5D-": "5-digit subtraction",
    "2Dx": "2-digit multiplication", "1DC": "1-digit composite", "CL": "cycled letters", "A1": "anagrams, ends kept",
    "A2": "anagrams, two kept at each end", "RI": "symbols removed from words", "RW": "reversed words",
}  # fmt: skip
SHOWN = ("2D+", "3D+", "3D-", "4D+", "2Dx", "CL", "A2", "RI")  # without arguments
MMLU_ITEMS = {"humanities": 4705, "social_sciences": 3077, "stem": 3018, "other": 3242}
MMLU_ALL = sum(MMLU_ITEMS.values())
_OLMO_TASKS = {  # column: name, items, chance
    "mmlu_stem": ("MMLU STEM", 3018, 0.25), "mmlu_humanities": ("MMLU humanities", 4705, 0.25),
    "mmlu_social_sciences": ("MMLU social sciences", 3077, 0.25), "mmlu_other": ("MMLU other", 3242, 0.25),
    "hellaswag": ("HellaSwag", 10042, 0.25), "arc_challenge": ("ARC challenge", 1172, 0.25),
    "arc_easy": ("ARC easy", 2376, 0.25), "piqa": ("PIQA", 1838, 0.5), "csqa": ("CommonsenseQA", 1221, 0.2),
    "socialiqa": ("Social IQa", 1954, 1 / 3), "openbookqa": ("OpenBookQA", 500, 0.25), "winogrande": ("WinoGrande", 1267, 0.5),
}  # fmt: skip
_OLMO_COMPANIONS = {"bpb": "bpb", "soft": "p_gold"}  # column: companion


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Compute at which an ability was said to emerge (Wei et al. 2022, table 1)."""

    ability: str
    kind: str
    flops: float
    params: str
    model: str
    reference: str


def thresholds() -> list[Threshold]:
    """All 22 rows."""
    return [Threshold(**(row | {"flops": float(row["flops"])})) for row in _rows("wei2022_thresholds")]  # type: ignore[arg-type]


def gpt3(task: str, shots: str = "few") -> Shown:
    """A synthetic task of GPT-3, eight sizes.

    Args:
      task: its short name, a key of ``NAMES``.
      shots: 'few', or '0' or '1'.
    """
    k = FEW.get(task, 50) if shots == "few" else int(shots)
    rows = [r for r in _rows("gpt3_synthetic") if r["task"] == task and int(r["shots"]) == k]
    points = [
        Point(
            float(r["flops"]), float(r["percent"]) / 100, float(r["n"]), float(r["n_params"]), cluster=r["model"],
            size=r["model"],
        )
        for r in rows
    ]  # fmt: skip
    name = NAMES[task] if shots == "few" else f"{NAMES[task]}, {k}-shot"
    made = ability(
        points, name, EXACT, 0.0, group="arithmetic" if "D" in task else "words", source="Brown et al. 2020, table H.1"
    )
    return Shown(f"gpt3/{task}/{k}", NAMES[task], "generate", k, made)


def gpt3_mmlu(group: str = "all") -> Shown:
    """GPT-3 on MMLU by letter, four sizes; ``group`` is 'all' or one of ``MMLU_ITEMS``."""
    n = MMLU_ITEMS.get(group, MMLU_ALL)
    points = [
        Point(float(r["flops"]), float(r[group]) / 100, n, float(r["n_params"]), cluster=r["model"], size=r["model"])
        for r in _rows("gpt3_mmlu")
    ]
    name = "MMLU" if group == "all" else f"MMLU {'STEM' if group == 'stem' else group.replace('_', ' ')}"
    made = ability(points, f"{name}, letter, GPT-3", ACCURACY, 0.25, group="MMLU", source="Hendrycks et al. 2021, table 1")
    return Shown(f"gpt3/mmlu-{group}/5".replace("_", "-"), name, "letter", 5, made)


def public_mmlu(family: str = "") -> Shown:
    """MMLU by letter of public models against training FLOPs.

    Args:
      family: models whose family begins with this, such as 'Llama'; all where it is empty.
    """
    rows = [r for r in _rows("mmlu_public") if r["family"].startswith(family)]
    points = [
        Point(
            float(r["flops"] or "nan"), float(r["mmlu"]), MMLU_ALL, float(r["n_params"] or "nan"), cluster=r["family"],
            excluded=r["excluded"] or None, size=r["model"].split("/")[-1],
        )
        for r in rows
    ]  # fmt: skip
    who = f"{family} models" if family else PUBLIC
    made = ability(points, f"MMLU, letter, {who}", ACCURACY, 0.25, group="MMLU", source="Ruan et al. 2024 (ObsScaling)")
    key = f"{family.lower() or 'public'}/mmlu/5"
    return Shown(key, "MMLU", "letter", 5, made, tuple(p for p in points if p.excluded and math.isfinite(p.flops)))


def olmo(task: str = "mmlu") -> Shown:
    """A task of the OLMo ladder by continuation, 27 runs; 'mmlu' is the mean over its items of the four groups."""
    if task == "mmlu":
        parts, name, n, chance = {f"mmlu_{g}": k / MMLU_ALL for g, k in MMLU_ITEMS.items()}, "MMLU", MMLU_ALL, 0.25
    else:
        name, n, chance = _OLMO_TASKS[task]
        parts = {task: 1.0}
    points = [
        Point(
            float(r["flops"]), _mean(r, parts, "acc"), n, float(r["n_params"]), float(r["c4_loss"]), cluster=r["run"],
            companions={to: _mean(r, parts, column) for column, to in _OLMO_COMPANIONS.items()}, size=r["size"],
        )
        for r in _rows("olmo_ladder")
    ]  # fmt: skip
    made = ability(
        points, f"{name}, cloze, OLMo", ACCURACY, chance, group="MMLU" if "mmlu" in task else "reasoning",
        source="Bhagia et al. 2024 (OLMo ladder)", loss_name="loss on C4, nats per token",
    )  # fmt: skip
    return Shown(f"olmo/{task.replace('_', '-')}/5", name, "cloze", 5, made)


def _mean(row: Mapping[str, str], weights: Mapping[str, float], column: str) -> float:
    return sum(w * float(row[f"{part}_{column}"]) for part, w in weights.items())


def shipped() -> list[Shown]:
    """Every ability that is judged without arguments, in the order of the figure."""
    return [
        *(gpt3(t) for t in SHOWN[:4]), public_mmlu(), public_mmlu("Llama"), gpt3_mmlu(), olmo(),
        *(gpt3(t) for t in SHOWN[4:]), *(olmo(t) for t in _OLMO_TASKS),
    ]  # fmt: skip


def few_shot(tasks: Iterable[str] = SHOWN) -> list[Shown]:
    """GPT-3's synthetic tasks with 0, 1 and few shots."""
    return [gpt3(task, k) for task in tasks for k in ("0", "1", "few")]


def everything() -> list[Shown]:
    """All that the tables hold: also the tasks, shots and groups that the figure leaves out."""
    first = shipped()
    keys = {s.key for s in first}
    return [*first, *(s for s in (*few_shot(NAMES), *(gpt3_mmlu(g) for g in MMLU_ITEMS)) if s.key not in keys)]


def _rows(name: str) -> list[dict[str, str]]:
    with open(DATA / f"{name}.csv", newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))
