"""Small configs, trees of parameters drawn wide, and batches."""

from typing import Any

import jax
import numpy as np

from scaling import config, model
from scaling.plan import Plan, make_plan

SHAPE = {"vocab_size": 50, "context": 12, "depth": 2, "width": 24, "heads": 4, "kv_heads": 2, "head_size": 6, "ff": 40}


def model_config(**fields: Any) -> config.ModelConfig:
    """A whole small model; fields override."""
    return config.model_config(**SHAPE | fields)


def train_config(**fields: Any) -> config.TrainConfig:
    """A small run: ``train_config(model_width=32, optim_lr=1e-3, budget='20 steps')``."""
    tree = config.default_dict()
    tree["model"] |= {"depth": 1, "width": 16, "context": 16, "vocab_size": 260}
    tree |= {"batch": "128 tokens", "budget": "20 steps"}
    for name, value in fields.items():
        room, _, field = name.partition("_")
        if room in ("model", "data", "optim", "machine"):
            tree[room][field] = value
        else:
            tree[name] = value
    return config.resolve(tree, "test")


def plan(**fields: Any) -> Plan:
    """The plan of ``train_config(**fields)``."""
    return make_plan(train_config(**fields))


def wide_params(c: config.ModelConfig, seed: int = 0, std: float = 0.3) -> Any:
    """Every parameter N(0, std), gains around 1: so wide that a wrong epsilon, activation or layout shows in the logits."""
    draw = np.random.default_rng(seed)

    def leaf(path: Any, x: Any) -> np.ndarray:
        mean = 1.0 if model.param_name(path) == "gain" else 0.0
        return (mean + std * draw.standard_normal(x.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, model.abstract_params(c))


def tokens(rows: int, length: int, vocab: int, seed: int = 0) -> np.ndarray:
    """(rows, length) int32, uniform."""
    return np.random.default_rng(seed).integers(0, vocab, (rows, length), dtype=np.int32)


def by_path(tree: Any) -> dict[str, Any]:
    """Leaves under names such as ``blocks/attention/q``."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path): x for path, x in leaves}


def max_difference(a: Any, b: Any) -> float:
    """The largest absolute difference between two trees."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)))) for x, y in pairs)
