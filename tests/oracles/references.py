"""The small models that are compared with transformers', and the mistakes made in them; for tests and benchmarks/parity.py."""

from typing import Any

from oracles import huggingface

SP: dict[str, Any] = {"parameterization": "sp", "norm_eps": 1e-5}
MUP: dict[str, Any] = {"parameterization": "mup", "base_width": 8, "base_head_size": 2, "norm_eps": 1e-5}
GPT2: dict[str, Any] = {
    **SP, "norm": "layernorm", "norm_bias": True, "positions": "learned", "activation": "gelu", "bias": True, "tied_head": True,
    "kv_heads": 4,
}  # fmt: skip

# Fields of tiny.model_config.
CASES: dict[str, dict[str, Any]] = {
    "GPT-2": GPT2,
    "GPT-2, own head, no biases, ReLU": {**GPT2, "tied_head": False, "bias": False, "norm_bias": False, "activation": "relu"},
    "GPT-2, muP": {**GPT2, **MUP},
    "Llama": SP,
    "Llama, tied, biases": {**SP, "tied_head": True, "bias": True, "rope_base": 500.0},
    "ladder's, muP, depth rule": {**MUP, "depth_rule": True, "base_depth": 1},
    "ladder's, muP, depth rule, tied, biases": {**MUP, "depth_rule": True, "base_depth": 1, "tied_head": True, "bias": True},
}
MISTAKES = {
    "GPT-2": huggingface.gpt2_mistakes,
    "Llama": huggingface.llama_mistakes,
    "ladder's, muP, depth rule": huggingface.mup_mistakes,
}
