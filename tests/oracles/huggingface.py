"""Logits of transformers' Llama and GPT-2 with our parameters copied in."""

from typing import Any

import numpy as np

from oracles import require
from scaling.config import ModelConfig


def _logits(hf: Any, weights: dict[str, np.ndarray], tokens_BT: np.ndarray) -> np.ndarray:
    torch = require("torch")
    own = hf.state_dict()
    tied = {"lm_head.weight"} - weights.keys()
    assert own.keys() - tied == weights.keys()
    for name, value in weights.items():
        assert own[name].shape == value.shape, name
        own[name].copy_(torch.from_numpy(np.array(value, np.float32)))
    with torch.no_grad():
        return hf.eval()(torch.from_numpy(tokens_BT).long()).logits.numpy()


def llama_logits(c: ModelConfig, params: Any, tokens_BT: np.ndarray) -> np.ndarray:
    """(B, T, V) by LlamaForCausalLM."""
    transformers = require("transformers")
    hf = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=c.vocab_size, hidden_size=c.width, intermediate_size=c.ff, num_hidden_layers=c.depth,
            num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head_size, rms_norm_eps=c.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope_base}, max_position_embeddings=c.context,
            tie_word_embeddings=False, attn_implementation="eager",
        )
    )  # fmt: skip
    blocks = params["blocks"]
    attention, mlp = blocks["attention"], blocks["mlp"]
    weights = {"model.embed_tokens.weight": params["embedding"], "model.norm.weight": params["final_norm"]["gain"]}
    weights["lm_head.weight"] = params["head"].T
    for i in range(c.depth):
        at = f"model.layers.{i}."
        for ours, theirs in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj")):
            weights[f"{at}self_attn.{theirs}.weight"] = attention[ours][i].reshape(c.width, -1).T
        weights[f"{at}self_attn.o_proj.weight"] = attention["o"][i].reshape(-1, c.width).T
        for ours in ("gate", "up", "down"):
            weights[f"{at}mlp.{ours}_proj.weight"] = mlp[ours][i].T
        weights[f"{at}input_layernorm.weight"] = blocks["attention_norm"]["gain"][i]
        weights[f"{at}post_attention_layernorm.weight"] = blocks["mlp_norm"]["gain"][i]
    return _logits(hf, weights, tokens_BT)


def gpt2_logits(c: ModelConfig, params: Any, tokens_BT: np.ndarray) -> np.ndarray:
    """(B, T, V) by GPT2LMHeadModel."""
    transformers = require("transformers")
    hf = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=c.vocab_size, n_positions=c.context, n_embd=c.width, n_layer=c.depth, n_head=c.heads, n_inner=c.ff,
            layer_norm_epsilon=c.norm_eps, activation_function="gelu_new", attn_implementation="eager",
        )
    )  # fmt: skip
    blocks = params["blocks"]
    attention, mlp = blocks["attention"], blocks["mlp"]
    weights = {"transformer.wte.weight": params["embedding"], "transformer.wpe.weight": params["positions"]}
    weights["lm_head.weight"] = params["embedding"]
    for part in ("weight", "bias"):
        weights[f"transformer.ln_f.{part}"] = params["final_norm"]["gain" if part == "weight" else "bias"]
    for i in range(c.depth):
        at = f"transformer.h.{i}."
        for ours, theirs in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
            weights[f"{at}{theirs}.weight"] = blocks[ours]["gain"][i]
            weights[f"{at}{theirs}.bias"] = blocks[ours]["bias"][i]
        qkv = [attention[name][i].reshape(c.width, c.width) for name in "qkv"]
        weights[f"{at}attn.c_attn.weight"] = np.concatenate(qkv, axis=1)
        weights[f"{at}attn.c_attn.bias"] = np.concatenate([attention[f"{name}_bias"][i].reshape(-1) for name in "qkv"])
        weights[f"{at}attn.c_proj.weight"] = attention["o"][i].reshape(c.width, c.width)
        weights[f"{at}attn.c_proj.bias"] = attention["o_bias"][i]
        weights[f"{at}mlp.c_fc.weight"], weights[f"{at}mlp.c_fc.bias"] = mlp["up"][i], mlp["up_bias"][i]
        weights[f"{at}mlp.c_proj.weight"], weights[f"{at}mlp.c_proj.bias"] = mlp["down"][i], mlp["down_bias"][i]
    return _logits(hf, weights, tokens_BT)
