"""Suites by name: the generated one, cloze of held-out text, a benchmark in a folder, or one of the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Any

from scaling import store, units
from scaling.evals import layouts
from scaling.evals.items import Suite, TaskError
from scaling.evals.layouts import SPLITS, TRAIN, Read
from scaling.evals.rows import Place

LAPTOP, PROSE, HUB = "laptop", "prose", "hf:"
PROSE_STORE = "tokens/apidocs"
KNOWN = {
    LAPTOP: "twelve generated subjects in four groups, for models of 10 thousand to 1 million parameters",
    f"{PROSE}[:STORE]": f"which word, and which sentence, comes next in held-out documents of a token store ({PROSE_STORE})",
    "FOLDER": "a folder or file in a published layout: MMLU, ARC, HellaSwag, LAMBADA, PIQA, BIG-bench-hard, GSM8K and others",
    "hf:NAME[:CONFIG]": "a dataset of the Hugging Face hub, such as hf:cais/mmlu (pip install -e '.[datasets]')",
}


def find(text: str, only: Sequence[str] = (), groups: str = "harness", layout: str | None = None) -> Suite:
    """The suite that ``text`` names.

    Args:
      text: 'laptop', 'prose' or 'prose:STORE', a folder or file, or 'hf:NAME' or 'hf:NAME:CONFIG'.
      only: names of the tasks to take; all by default.
      groups, layout: as ``layouts.load_folder``.

    Raises:
      TaskError: where there is no such suite or task, or its data cannot be used.
      StoreError: where a token store is missing or damaged.
    """
    if text == LAPTOP:
        from scaling.evals.laptop import suite

        return pick(suite(), only)
    if text.partition(":")[0] == PROSE:
        from scaling.evals import natural

        return pick(natural.kept(store.open_store(text.partition(":")[2] or PROSE_STORE)), only)
    if text.startswith(HUB):
        return _hub(text, only, groups)
    if pathlib.Path(text).exists():
        return layouts.load_folder(text, layout, only, groups)
    there = "; ".join(f"{name}: {what}" for name, what in KNOWN.items())
    beside = [p.name for p in pathlib.Path(text).parent.glob("*")] if pathlib.Path(text).parent.is_dir() else []
    meant = units.did_you_mean(pathlib.Path(text).name, [LAPTOP, PROSE, *beside])
    raise TaskError(f"no suite or folder {text!r}.{meant} There are: {there}")


def pick(suite: Suite, only: Sequence[str]) -> Suite:
    """The suite with the named tasks alone, in its own order; all of them for no names.

    Raises:
      TaskError: for a task that it does not have.
    """
    names = [t.name for t in suite.tasks]
    for name in only:
        if name not in names:
            raise TaskError(f"{suite.name}: no task {name!r}; it has {', '.join(names)}.{units.did_you_mean(name, names)}")
    return dataclasses.replace(suite, tasks=tuple(t for t in suite.tasks if t.name in only)) if only else suite


def _hub(text: str, only: Sequence[str], groups: str) -> Suite:
    """A dataset of the hub, or a local folder that ``datasets`` can read."""
    if importlib.util.find_spec("datasets") is None:
        raise TaskError(f"{text}: needs the package datasets, which is not installed: pip install -e '.[datasets]'")
    import datasets

    name, _, config = text.removeprefix(HUB).partition(":")
    try:
        configs = [config] if config else datasets.get_dataset_config_names(name)
        configs = ["all"] if "all" in configs else configs
        loaded: dict[str, Any] = {c: datasets.load_dataset(name, c) for c in configs}
    except Exception as error:  # it raises a dozen kinds: offline, no such name, no such config, private, broken
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TaskError(
            f"{text}: cannot be loaded ({why:.300}); check the name, its config, the network, and your token"
        ) from None
    title = name.rstrip("/").rsplit("/", 1)[-1]
    reads = []
    for c, splits in loaded.items():
        task = title if c in ("default", "all") else c
        for split, table in splits.items():
            if split in SPLITS and not (split == TRAIN and "validation" in splits and "dev" in splits):
                listed = [(Place(f"{HUB}{name} {c} {split}", n), row) for n, row in enumerate(table, 1)]
                if not all(_unlabelled(row) for _, row in listed):
                    reads.append(Read(task, SPLITS[split], listed))
    return layouts.suite_of(title, reads, only, groups)


def _unlabelled(row: Any) -> bool:
    """Whether a row's answer is held back, as in test splits with a leaderboard."""
    return any(row.get(field) in ("", "-1", -1) for field in ("label", "answerKey", "answer"))
