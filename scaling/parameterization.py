"""SP and muP as tables: for every class of parameter its initial scale and its multipliers.  Imports no jax.

With m = width / base_width and mF = ff / base_ff, muP for Adam reads (spelling "A" of Yang et al. 2022, Table 8; the same
rules as microsoft/mup's MuAdam and CompleteP, arXiv 2505.01618, Table 1):

    class       init std                 learning rate  weight decay  epsilon
    embedding   1 (tied .02, input x50)  1              0             1/m
    norm, bias  1, 0                     1              0             1/m
    q k v o up  1/sqrt(width)            1/m            m             1/m
    down        1/sqrt(ff)               1/mF           mF            1/m
    head        1/sqrt(base_width)       1              0             1/m      forward 1/m

so that lr x decay of a hidden matrix is the same at every width.  o and down are divided by sqrt(2 depth), as in GPT-2.
SP is GPT-2's: std .02, every multiplier 1.  The attention scale is sqrt(base_head_size) / head_size under muP,
1 / sqrt(head_size) under SP.

The depth rule (``depth_rule``, off by default) is CompleteP with exponent 1: with mL = depth / base_depth every residual
branch is multiplied by 1/mL, epsilon of everything inside the blocks by 1/mL as well, because its gradients are, and o and
down are divided by the constant sqrt(2 base_depth).  Learning rates do not change: their factor is mL^(exponent - 1).

Muon, which orthogonalises the updates of the matrices in the blocks, multiplies their learning rates by 1/sqrt(m) (down
1/sqrt(mF)) and their decay by the inverse, see ``rules``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from scaling.config import ModelConfig

# Parameter name (the last part of its path) -> (class in a block, logical axes without the leading layer axis).
PARAMETERS: dict[str, tuple[str, tuple[str | None, ...]]] = {
    "embedding": ("embedding", ("vocab", "embed")),
    "positions": ("embedding", (None, "embed")),
    "q": ("q", ("embed", "heads", None)),
    "k": ("hidden", ("embed", "kv_heads", None)),
    "v": ("hidden", ("embed", "kv_heads", None)),
    "o": ("out", ("heads", None, "embed")),
    "gate": ("hidden", ("embed", "ff")),
    "up": ("hidden", ("embed", "ff")),
    "down": ("down", ("ff", "embed")),
    "head": ("head", ("embed", "vocab")),
    "gain": ("gain", (None,)),
    "bias": ("bias", (None,)),
    "q_bias": ("bias", ("heads", None)),
    "k_bias": ("bias", ("kv_heads", None)),
    "v_bias": ("bias", ("kv_heads", None)),
    "o_bias": ("bias", (None,)),
    "gate_bias": ("bias", ("ff",)),
    "up_bias": ("bias", ("ff",)),
    "down_bias": ("bias", (None,)),
}


BLOCKS = "blocks"  # what stands below this name in the tree of parameters is in a residual branch
OUTSIDE = {"gain": "final_gain", "bias": "final_bias"}  # classes that are also found elsewhere, and their names there
MATRICES = ("q", "hidden", "out", "down")  # the matrices of the blocks: these decay, and Muon takes these


@dataclasses.dataclass(frozen=True)
class Rule:
    """What holds for one class: standard deviation (and mean) at initialisation, and multipliers for the optimizer."""

    init_std: float
    lr: float = 1.0
    weight_decay: float = 1.0
    eps: float = 1.0
    init_mean: float = 0.0


def class_of(path: Sequence[str]) -> str:
    """The class of a parameter from the names on its path, such as ``('blocks', 'mlp', 'down')``."""
    kind = PARAMETERS[path[-1]][0]
    return kind if BLOCKS in path else OUTSIDE.get(kind, kind)


def rules(c: ModelConfig, optimizer: str = "adamw") -> dict[str, Rule]:
    """The table of ``c.parameterization`` at the shape of ``c``, by class.

    For Muon the matrices of the blocks have the square root of Adam's learning-rate multiplier.  Both updates have the same
    root mean square, but Adam's has nearly one direction and a spectral norm that grows as m, Muon's has all directions and
    a norm that grows as sqrt(m); what must not depend on the width is the norm (Yang, Simon & Bernstein 2023, arXiv
    2310.17813).  Decay follows inversely, so that lr x decay stays the same at every width.
    """
    table = _mup(c) if c.parameterization == "mup" else _sp(c)
    if optimizer == "muon":
        for kind in MATRICES:
            r = table[kind]
            table[kind] = dataclasses.replace(r, lr=math.sqrt(r.lr), weight_decay=r.weight_decay * math.sqrt(r.lr))
    return table


def _mup(c: ModelConfig) -> dict[str, Rule]:
    m, m_ff = c.width / c.base_width, c.ff / c.base_ff
    outside, inside = 1 / m, branch_multiplier(c) / m  # epsilon
    hidden = Rule(c.width**-0.5, lr=1 / m, weight_decay=m, eps=inside)
    residual = (2 * (c.base_depth if c.depth_rule else c.depth)) ** -0.5
    return {
        "embedding": Rule(0.02 if c.tied_head else 1.0, weight_decay=0.0, eps=outside),
        "gain": Rule(0.0, weight_decay=0.0, eps=inside, init_mean=1.0),
        "bias": Rule(0.0, weight_decay=0.0, eps=inside),
        "q": dataclasses.replace(hidden, init_std=0.0) if c.zero_init_q else hidden,
        "hidden": hidden,
        "out": dataclasses.replace(hidden, init_std=hidden.init_std * residual),
        "down": Rule(c.ff**-0.5 * residual, lr=1 / m_ff, weight_decay=m_ff, eps=inside),
        "final_gain": Rule(0.0, weight_decay=0.0, eps=outside, init_mean=1.0),
        "final_bias": Rule(0.0, weight_decay=0.0, eps=outside),
        "head": Rule(0.0 if c.zero_init_head else c.base_width**-0.5, weight_decay=0.0, eps=outside),
    }


def _sp(c: ModelConfig) -> dict[str, Rule]:
    hidden, residual = Rule(0.02), (2 * c.depth) ** -0.5
    gain, bias = Rule(0.0, weight_decay=0.0, init_mean=1.0), Rule(0.0, weight_decay=0.0)
    return {
        "embedding": Rule(0.02, weight_decay=0.0),
        "gain": gain,
        "bias": bias,
        "q": Rule(0.0) if c.zero_init_q else hidden,
        "hidden": hidden,
        "out": Rule(0.02 * residual),
        "down": Rule(0.02 * residual),
        "final_gain": gain,
        "final_bias": bias,
        "head": Rule(0.0 if c.zero_init_head else 0.02, weight_decay=0.0),
    }


def branch_multiplier(c: ModelConfig) -> float:
    """What a residual branch is multiplied by before it is added: 1/mL under the depth rule."""
    return c.base_depth / c.depth if c.depth_rule else 1.0


def input_multiplier(c: ModelConfig) -> float:
    """What embeddings are multiplied by before the first block (a tied table is stored small, read large)."""
    return 50.0 if c.parameterization == "mup" and c.tied_head else 1.0


def logit_multiplier(c: ModelConfig) -> float:
    """What logits are multiplied by: 1/m under muP."""
    return c.base_width / c.width if c.parameterization == "mup" else 1.0


def attention_scale(c: ModelConfig) -> float:
    """What attention scores are multiplied by before the softmax."""
    return math.sqrt(c.base_head_size) / c.head_size if c.parameterization == "mup" else c.head_size**-0.5
