"""Tasks for the real lm-evaluation-harness as its users write them: a YAML file and a JSON-lines file, read offline.

The multiple-choice template is MMLU's as the harness has it, so the prompts that ours are compared with are rendered by it.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from oracles import require

Row = tuple[str, Sequence[str], int]  # question, choices, the right one


def evaluator() -> Any:
    """The package ``lm_eval``, else the test is skipped (see ``require``)."""
    return require("lm_eval")


def write_mmlu(
    folder: pathlib.Path, name: str, subjects: Mapping[str, tuple[Sequence[Row], Sequence[Row]]], shots: int
) -> None:
    """A group ``name`` of a task ``<name>_<subject>`` for each subject's dev and test rows, asked with ``shots``."""
    for subject, (dev, test) in subjects.items():
        files = {}
        for split, rows in (("dev", dev), ("test", test)):
            files[split] = _rows(
                folder / f"{name}_{subject}_{split}.jsonl",
                [{"question": q, "choices": list(choices), "answer": answer} for q, choices, answer in rows],
            )
        _write(
            folder / f"{name}_{subject}.yaml",
            task=f"{name}_{subject}",
            dataset_path="json",
            dataset_kwargs={"data_files": files, "cache_dir": str(folder / "cache")},
            test_split="test",
            fewshot_split="dev",
            fewshot_config={"sampler": "first_n"},
            num_fewshot=shots,
            output_type="multiple_choice",
            description=f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n",
            doc_to_text="{{question.strip()}}\n"
            + "".join(f"{letter}. {{{{choices[{i}]}}}}\n" for i, letter in enumerate("ABCD"))
            + "Answer:",
            doc_to_choice=list("ABCD"),
            doc_to_target="answer",
            metric_list=[{"metric": "acc"}, {"metric": "brier_score"}],
        )
    _write(
        folder / f"{name}.yaml",
        group=name,
        task=[f"{name}_{subject}" for subject in subjects],
        aggregate_metric_list=[{"metric": "acc", "weight_by_size": True}],
    )


def write_task(folder: pathlib.Path, name: str, rows: Sequence[Mapping[str, Any]], **fields: Any) -> None:
    """A task ``name`` over ``rows``; ``fields`` as in the harness's YAML."""
    data = {"data_files": {"test": _rows(folder / f"{name}.jsonl", rows)}, "cache_dir": str(folder / "cache")}
    _write(folder / f"{name}.yaml", task=name, dataset_path="json", dataset_kwargs=data, test_split="test", **fields)


def _rows(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _write(path: pathlib.Path, **fields: Any) -> None:
    path.write_text(json.dumps(fields))  # JSON is YAML
