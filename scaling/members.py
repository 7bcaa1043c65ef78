"""A trained member, opened for use: its config, the parameters of a checkpoint, its tokenizer, and how far it was trained."""

from __future__ import annotations

import os
import pathlib
from typing import Any, NamedTuple

from scaling import flops, hf, runs
from scaling import tokenizer as tokenizers
from scaling.config import TrainConfig
from scaling.store import StoreError, open_store
from scaling.tokenizer import Tokenizer


class Member(NamedTuple):
    """What ``open_member`` gives.

    Attributes:
      config: of the run; ``config.model`` is what ``scaling.model`` takes.
      params: as ``model.init`` gives them, float32, on the CPU (``jax.device_put`` takes them elsewhere).
      tokenizer: of the tokens that it was trained on.
      step, tokens, flops: how far the checkpoint is in training, FLOPs by ``flops.DEFAULT_CONVENTION``.
    """

    config: TrainConfig
    params: Any
    tokenizer: Tokenizer
    step: int
    tokens: int
    flops: float


def open_member(run_dir: str | os.PathLike[str], step: int | None = None) -> Member:
    """The member in ``run_dir`` at the checkpoint of ``step``, by default its newest; nothing is written.

    Raises:
      RunError: when there is no run, no such checkpoint, it cannot be read, or ``run_dir`` is a sweep's folder.
      StoreError: when the vocabulary is BPE and its store is missing or damaged, or has another vocabulary.
    """
    root = pathlib.Path(run_dir)
    if not root.is_dir():
        raise runs.RunError(f"{root}: no such folder; give the folder of a member, such as runs/ladder/110K-1.2M")
    if (root / runs.SWEEP).exists():
        names = [member.id for member in runs.members(root)]
        raise runs.RunError(f"{root}: a whole sweep; choose one of its members: {', '.join(names)}")
    config, params, at = hf.load_run(root, step)
    plan = runs.read_json(root / runs.PLAN)
    if plan is None:
        raise runs.RunError(f"{root / runs.PLAN}: missing; bring the files of the run back")
    tokens = at * plan["batch_tokens"]
    per_token = plan["flops_per_token"][flops.DEFAULT_CONVENTION]
    return Member(config, params, tokenizer_of(config), at, tokens, tokens * per_token)


def tokenizer_of(config: TrainConfig) -> Tokenizer:
    """The tokenizer of a run: bytes need no store, a BPE vocabulary is in the store that the run was trained on.

    Raises:
      StoreError: when that store is missing or damaged, or its vocabulary is another.
    """
    if config.data.vocab == "bytes":
        return tokenizers.byte_tokenizer()
    path = config.data.sources[0][0]  # of a mixture all have one vocabulary
    store = open_store(path)
    if store.vocab != config.data.vocab:
        raise StoreError(
            f"{path}: its vocabulary is {store.vocab!r}, the run was trained on {config.data.vocab!r}; bring that store back"
        )
    return store.tokenizer
