"""MMLU's 57 subjects in four groups, by both published maps: they differ in ``anatomy`` alone.

'harness': lm-evaluation-harness has it under STEM: 19 / 13 / 12 / 13 subjects of STEM / other / social sciences / humanities.
'hendrycks': the authors' own ``categories.py`` (Hendrycks et al. 2021, arXiv 2009.03300) has it under other: 18 / 14 / 12 / 13
subjects of 3018 / 3242 / 3077 / 4705 test items.  The average over all items is the same under both, the groups' are not.
"""

from __future__ import annotations

from collections.abc import Mapping

from scaling import units
from scaling.evals.items import TaskError

STEM, OTHER, SOCIAL, HUMANITIES = "STEM", "other", "social sciences", "humanities"

_SUBJECTS = {
    STEM: "abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science college_mathematics "
    "college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics high_school_biology "
    "high_school_chemistry high_school_computer_science high_school_mathematics high_school_physics high_school_statistics "
    "machine_learning",
    OTHER: "business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing medical_genetics "
    "miscellaneous nutrition professional_accounting professional_medicine virology",
    SOCIAL: "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
    "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
    "security_studies sociology us_foreign_policy",
    HUMANITIES: "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law "
    "jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law world_religions",
}  # fmt: skip

HARNESS: Mapping[str, str] = {subject: group for group, names in _SUBJECTS.items() for subject in names.split()}
HENDRYCKS: Mapping[str, str] = {**HARNESS, "anatomy": OTHER}
MAPS = {"harness": HARNESS, "hendrycks": HENDRYCKS}
SUBJECTS = tuple(sorted(HARNESS))


def map_of(name: str) -> Mapping[str, str]:
    """Group by subject.

    Raises:
      TaskError: for another name than those of ``MAPS``.
    """
    if name not in MAPS:
        raise TaskError(f"groups {name!r}; choose of {', '.join(MAPS)}.{units.did_you_mean(name, MAPS)}")
    return MAPS[name]
