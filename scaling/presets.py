"""Published architectures by name: a preset is a ``ModelConfig``.  Imports no jax.

    from scaling import model
    config = model.preset("gpt2")                       # any field can be given: preset("gpt2", dtype="bfloat16")
    python -m scaling.train --config preset.py:gpt2     # see configs/preset.py

Shapes are those of the published checkpoints (their config.json), initialisation and multipliers are SP (GPT-2's).  Sources:
GPT-2, Radford et al. 2019, Table 2; Llama, Touvron et al. 2023 (arXiv 2302.13971, 2307.09288); Llama 3, arXiv 2407.21783;
TinyLlama, arXiv 2401.02385; SmolLM, its model cards; stories*, karpathy/llama2.c.

Llama 3.1 and 3.2 stretch their rotary frequencies for contexts beyond 8192, which this model does not have: ``llama3.2-*`` is
the shape with plain frequencies at 8192, and ``scaling.hf`` refuses to read those weights.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from scaling import units
from scaling.config import ConfigError, ModelConfig, model_config


def _gpt2(depth: int, width: int, heads: int) -> ModelConfig:
    return model_config(
        vocab_size=50257, context=1024, depth=depth, width=width, heads=heads, ff=4 * width, norm="layernorm", norm_bias=True,
        norm_eps=1e-5, positions="learned", activation="gelu", bias=True, tied_head=True, parameterization="sp",
        zero_init_q=False,
    )  # fmt: skip


def _llama(depth: int, width: int, heads: int, kv_heads: int, ff: int, **fields: Any) -> ModelConfig:
    shape: dict[str, Any] = {"depth": depth, "width": width, "heads": heads, "kv_heads": kv_heads, "ff": ff}
    common = {"vocab_size": 32000, "context": 4096, "norm_eps": 1e-5, "parameterization": "sp", "zero_init_q": False}
    return model_config(**shape | common | fields)


LLAMA_3: dict[str, Any] = {"vocab_size": 128256, "context": 8192, "rope_base": 500_000.0}
SMOL: dict[str, Any] = {"vocab_size": 49152, "context": 2048, "tied_head": True}
STORIES: dict[str, Any] = {"tied_head": True}

PRESETS: dict[str, ModelConfig] = {
    "gpt2": _gpt2(12, 768, 12),  # 124M
    "gpt2-medium": _gpt2(24, 1024, 16),  # 355M
    "gpt2-large": _gpt2(36, 1280, 20),  # 774M
    "gpt2-xl": _gpt2(48, 1600, 25),  # 1.56B
    "stories15M": _llama(6, 288, 6, 6, 768, context=256, **STORIES),
    "stories42M": _llama(8, 512, 8, 8, 1376, context=1024, **STORIES),
    "stories110M": _llama(12, 768, 12, 12, 2048, context=1024, **STORIES),
    "smollm-135M": _llama(30, 576, 9, 3, 1536, **SMOL),
    "smollm-360M": _llama(32, 960, 15, 5, 2560, **SMOL),
    "smollm-1.7B": _llama(24, 2048, 32, 32, 8192, **SMOL),
    "tinyllama-1.1B": _llama(22, 2048, 32, 4, 5632, context=2048),
    "llama-7B": _llama(32, 4096, 32, 32, 11008, context=2048, norm_eps=1e-6),
    "llama2-7B": _llama(32, 4096, 32, 32, 11008),
    "llama2-13B": _llama(40, 5120, 40, 40, 13824),
    "llama2-70B": _llama(80, 8192, 64, 8, 28672),
    "llama3-8B": _llama(32, 4096, 32, 8, 14336, **LLAMA_3),
    "llama3-70B": _llama(80, 8192, 64, 8, 28672, **LLAMA_3),
    "llama3.2-1B": _llama(16, 2048, 32, 8, 8192, tied_head=True, **LLAMA_3),
    "llama3.2-3B": _llama(28, 3072, 24, 8, 8192, tied_head=True, **LLAMA_3),
}


def preset(name: str, **fields: Any) -> ModelConfig:
    """The published architecture ``name`` of ``PRESETS``; fields override.

    Raises:
      ConfigError: for an unknown name or field, or fields that do not fit together.
    """
    if name not in PRESETS:
        near = units.did_you_mean(name, tuple(PRESETS))
        raise ConfigError([f"preset={name!r}: no such preset, there are {', '.join(PRESETS)}.{near}"], "model")
    return model_config(**dataclasses.asdict(PRESETS[name]) | fields)
