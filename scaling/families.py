"""The GPT-2 and Llama families of Hugging Face checkpoints: their tensors and config.json beside ours.  Imports no jax.

``scaling.hf`` reads and writes folders by these tables.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scaling import parameterization
from scaling.config import ConfigError, ModelConfig
from scaling.tokenizer import BOS, EOS, PAD, SPECIALS, UNK

# ------------------------------------------------------------------------------------------- tensors, by name


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a file: leaves of ours as matrices (inputs, outputs), side by side along the outputs.

    ``{}`` in the name is the layer.  The first ``inputs`` axes of a leaf (of one layer) are its inputs, none for a vector;
    torch's Linear stores (outputs, inputs), GPT-2's Conv1D (inputs, outputs).
    """

    name: str
    leaves: tuple[str, ...]
    inputs: int = 0
    transposed: bool = False

    @property
    def stacked(self) -> bool:
        return "{}" in self.name

    def join(self, parts: list[np.ndarray]) -> np.ndarray:
        """The file's tensor from our leaves of one layer."""
        flat = [x.reshape(*self._rows(x.shape), -1) for x in parts]
        joined = np.concatenate(flat, axis=-1)
        return np.ascontiguousarray(joined.T if self.transposed else joined)

    def split(self, tensor: np.ndarray, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        """Our leaves of one layer from the file's tensor; undoes ``join``."""
        joined = tensor.T if self.transposed else tensor
        ends = np.cumsum([math.prod(shape[self.inputs :]) for shape in shapes])[:-1]
        return [x.reshape(shape) for x, shape in zip(np.split(joined, ends, axis=-1), shapes, strict=True)]

    def shape(self, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
        """Of the file's tensor, from those of our leaves of one layer."""
        joined = (*self._rows(shapes[0]), sum(math.prod(shape[self.inputs :]) for shape in shapes))
        return joined[::-1] if self.transposed else joined

    def _rows(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(shape[: self.inputs]),) if self.inputs else ()


def _gpt2_tensors(c: ModelConfig) -> list[Tensor]:
    attention, mlp = "blocks/attention/", "blocks/mlp/"
    tensors = [
        Tensor("transformer.wte.weight", ("embedding",), 1),
        Tensor("transformer.wpe.weight", ("positions",), 1),
        *_norm("transformer.ln_f", "final_norm", bias=True),
        *_norm("transformer.h.{}.ln_1", "blocks/attention_norm", bias=True),
        *_norm("transformer.h.{}.ln_2", "blocks/mlp_norm", bias=True),
        Tensor("transformer.h.{}.attn.c_attn.weight", tuple(attention + n for n in "qkv"), 1),
        Tensor("transformer.h.{}.attn.c_attn.bias", tuple(f"{attention}{n}_bias" for n in "qkv")),
        Tensor("transformer.h.{}.attn.c_proj.weight", (f"{attention}o",), 2),
        Tensor("transformer.h.{}.attn.c_proj.bias", (f"{attention}o_bias",)),
    ]
    for ours, theirs in (("up", "c_fc"), ("down", "c_proj")):
        tensors.append(Tensor(f"transformer.h.{{}}.mlp.{theirs}.weight", (mlp + ours,), 1))
        tensors.append(Tensor(f"transformer.h.{{}}.mlp.{theirs}.bias", (f"{mlp}{ours}_bias",)))
    return tensors + _head(c)


def _llama_tensors(c: ModelConfig) -> list[Tensor]:
    tensors = [
        Tensor("model.embed_tokens.weight", ("embedding",), 1),
        *_norm("model.norm", "final_norm", bias=False),
        *_norm("model.layers.{}.input_layernorm", "blocks/attention_norm", bias=False),
        *_norm("model.layers.{}.post_attention_layernorm", "blocks/mlp_norm", bias=False),
    ]
    for room, there, names in (("attention", "self_attn", ("q", "k", "v", "o")), ("mlp", "mlp", ("gate", "up", "down"))):
        for name in names:
            at, leaf = f"model.layers.{{}}.{there}.{name}_proj", f"blocks/{room}/{name}"
            tensors.append(Tensor(f"{at}.weight", (leaf,), 2 if name == "o" else 1, transposed=True))
            tensors += [Tensor(f"{at}.bias", (f"{leaf}_bias",))] if c.bias else []
    return tensors + _head(c)


def _norm(name: str, leaf: str, bias: bool) -> list[Tensor]:
    return [Tensor(f"{name}.weight", (f"{leaf}/gain",)), *([Tensor(f"{name}.bias", (f"{leaf}/bias",))] if bias else [])]


def _head(c: ModelConfig) -> list[Tensor]:
    return [] if c.tied_head else [Tensor("lm_head.weight", ("head",), 1, transposed=True)]


# ------------------------------------------------------------------------------------------- config.json


class Fields:
    """The fields of a config.json, with what is wrong with them."""

    def __init__(self, content: Mapping[str, Any], problems: list[str]):
        self.content, self.problems = content, problems

    def number(self, name: str, default: float | None = None, whole: bool = True) -> Any:
        """A positive number; ``default`` where the field is absent or null."""
        value = self.content.get(name)
        value = default if value is None else value
        kinds = int if whole else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool) or value <= 0:
            self.problems.append(f"{name}={value!r}: must be a positive {'whole ' if whole else ''}number")
            return 1
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.content.get(name, default)
        if not isinstance(value, bool):
            self.problems.append(f"{name}={value!r}: must be true or false")
        return bool(value)

    def must_be(self, name: str, default: Any, allowed: tuple[Any, ...], why: str) -> Any:
        """The field, which only some values of can be expressed; the first of them where it is another."""
        value = self.content.get(name, default)
        if value in allowed:
            return value
        say = " or ".join(json.dumps(a) for a in allowed)
        self.problems.append(f"{name}={json.dumps(value)}: {why}; only {say} can be read, choose another checkpoint")
        return allowed[0]

    def group(self, name: str) -> dict[str, Any]:
        """A field that is an object; empty where it is absent or null."""
        value = self.content.get(name)
        if value is not None and not isinstance(value, dict):
            self.problems.append(f"{name}={json.dumps(value)}: must be an object or null; fetch the file again")
        return value if isinstance(value, dict) else {}


GELUS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}  # 'gelu' is the erf form, which we do not have


def _gpt2_fields(f: Fields) -> dict[str, Any]:
    """Fields of a ModelConfig from a GPT-2 config.json; defaults are those of transformers' GPT2Config."""
    act = f.must_be("activation_function", "gelu_new", tuple(GELUS), "this model has GELU in its tanh form, and ReLU")
    f.must_be("scale_attn_weights", True, (True,), "scores without 1/sqrt(head size)")
    f.must_be("scale_attn_by_inverse_layer_idx", False, (False,), "scores scaled by layer")
    f.must_be("add_cross_attention", False, (False,), "attention to an encoder")
    width, heads = f.number("n_embd"), f.number("n_head")
    return {
        "vocab_size": f.number("vocab_size"), "context": f.number("n_positions"), "depth": f.number("n_layer"), "width": width,
        "heads": heads, "ff": f.number("n_inner", 4 * width), "norm": "layernorm", "norm_bias": True, "positions": "learned",
        "norm_eps": f.number("layer_norm_epsilon", 1e-5, whole=False), "activation": GELUS[act], "bias": True,
        "tied_head": f.flag("tie_word_embeddings", True),
    }  # fmt: skip


def _gpt2_json(c: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": c.vocab_size, "n_positions": c.context,
        "n_embd": c.width, "n_layer": c.depth, "n_head": c.heads, "n_inner": c.ff, "layer_norm_epsilon": c.norm_eps,
        "activation_function": "gelu_new" if c.activation == "gelu" else "relu", "embd_pdrop": c.dropout,
        "resid_pdrop": c.dropout, "attn_pdrop": 0.0, "tie_word_embeddings": c.tied_head,
    }  # fmt: skip


def _llama_fields(f: Fields) -> dict[str, Any]:
    """Fields of a ModelConfig from a Llama config.json; defaults are those of transformers' LlamaConfig."""
    f.must_be("hidden_act", "silu", ("silu", "swish"), "this model has SwiGLU")
    bias = f.flag("attention_bias", False)
    if bias != f.flag("mlp_bias", False):
        f.problems.append(
            f"attention_bias={json.dumps(bias)}: not as mlp_bias; this model has biases everywhere or nowhere, choose "
            "another checkpoint"
        )
    f.must_be("sliding_window", None, (None,), "attention in a window")
    width, heads = f.number("hidden_size"), f.number("num_attention_heads")
    head_size = f.number("head_dim", max(1, width // heads))
    if heads * head_size != width:
        f.problems.append(
            f"head_dim={head_size}: {heads} heads of it are not hidden_size={width}, which this model needs; choose another "
            "checkpoint"
        )
    return {
        "vocab_size": f.number("vocab_size"), "context": f.number("max_position_embeddings", 2048),
        "depth": f.number("num_hidden_layers"), "width": width, "heads": heads, "head_size": head_size,
        "kv_heads": f.number("num_key_value_heads", heads), "ff": f.number("intermediate_size"),
        "norm_eps": f.number("rms_norm_eps", 1e-6, whole=False), "rope_base": _rope_base(f), "bias": bias,
        "tied_head": f.flag("tie_word_embeddings", False),
    }  # fmt: skip


def _rope_base(f: Fields) -> float:
    """From ``rope_parameters`` (transformers 5) or ``rope_theta`` beside ``rope_scaling`` (4)."""
    ropes = {name: f.group(name) for name in ("rope_scaling", "rope_parameters")}
    for name, rope in ropes.items():
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            f.problems.append(
                f"{name}.rope_type={json.dumps(kind)}: stretched rotary frequencies, which this model does not have; choose a "
                "checkpoint of plain rotary positions"
            )
    fields = Fields({"rope_theta": f.content.get("rope_theta")} | ropes["rope_parameters"], f.problems)
    return float(fields.number("rope_theta", 10_000.0, False))


def _llama_json(c: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": c.vocab_size,
        "max_position_embeddings": c.context, "hidden_size": c.width, "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads, "num_key_value_heads": c.kv_heads, "head_dim": c.head_size, "intermediate_size": c.ff,
        "hidden_act": "silu", "rms_norm_eps": c.norm_eps, "rope_theta": c.rope_base, "attention_bias": c.bias,
        "mlp_bias": c.bias, "attention_dropout": 0.0, "tie_word_embeddings": c.tied_head,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------- families


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of checkpoint.

    Attributes:
      model_type: what config.json calls it.
      prefix: what tensors of the body begin with in a file of the language model; a file of the body alone lacks it.
      buffers: names (as a pattern) that older versions of transformers wrote and that hold no parameters.
      needs: the fields of a ModelConfig that it cannot do otherwise, with the values it can.
      completed: fields that are off in a model of ours that the family can hold with zeros in their place.
    """

    model_type: str
    prefix: str
    buffers: str
    needs: Mapping[str, tuple[Any, ...]]
    completed: Mapping[str, Any]
    tensors: Callable[[ModelConfig], list[Tensor]]
    fields: Callable[[Fields], dict[str, Any]]
    to_json: Callable[[ModelConfig], dict[str, Any]]


FAMILIES = (
    Family(
        "gpt2", "transformer.", r"h\.\d+\.attn\.(bias|masked_bias)",
        {"norm": ("layernorm",), "norm_position": ("pre",), "activation": ("gelu", "relu"), "qk_norm": (False,)},
        {"bias": True, "norm_bias": True}, _gpt2_tensors, _gpt2_fields, _gpt2_json,
    ),
    Family(
        "llama", "model.", r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
        {"norm": ("rmsnorm",), "norm_position": ("pre",), "activation": ("swiglu",), "qk_norm": (False,)},
        {}, _llama_tensors, _llama_fields, _llama_json,
    ),
)  # fmt: skip
BY_POSITIONS = dict(zip(("learned", "rotary"), FAMILIES, strict=True))


def family_of(c: ModelConfig) -> Family:
    """The family that can hold ``c``, by its positions.

    Raises:
      ConfigError: naming every field that its family cannot hold.
    """
    if c.positions not in BY_POSITIONS:
        why = "GPT-2 has learned positions and Llama rotary ones; only these can be written"
        raise ConfigError([f"model.positions={c.positions!r}: {why}"], "hf export")
    family = BY_POSITIONS[c.positions]
    problems = []
    for name, allowed in family.needs.items():
        value = getattr(c, name)
        if value not in allowed:
            say = " or ".join(repr(a) for a in allowed)
            problems.append(
                f"model.{name}={value!r}: {family.model_type} (positions {c.positions!r}) has {say}, and the difference cannot "
                f"be folded into weights; train with model.{name}={allowed[0]!r} to export"
            )
    if family.model_type == "gpt2" and c.kv_heads != c.heads:
        problems.append(f"model.kv_heads={c.kv_heads}: gpt2 has as many as heads, {c.heads}; train with that to export")
    if problems:
        raise ConfigError(problems, "hf export")
    return family


def folded(c: ModelConfig) -> dict[str, float]:
    """What each leaf is multiplied by so that a model without multipliers gives the logits of ``c``; leaves left out, by 1.

    A tied table is stored once: it takes the factor of the input, and the last norm makes up for it in the logits.
    """
    embed, logits = parameterization.input_multiplier(c), parameterization.logit_multiplier(c)
    scale = parameterization.attention_scale(c) * math.sqrt(c.head_size)
    branch = parameterization.branch_multiplier(c)
    factors = {"embedding": embed, "positions": embed}
    factors |= {f"blocks/attention/{name}": scale for name in ("q", "q_bias")}
    factors |= {f"blocks/{name}": branch for name in ("attention/o", "attention/o_bias", "mlp/down", "mlp/down_bias")}
    if c.tied_head:
        factors |= {f"final_norm/{name}": logits / embed for name in ("gain", "bias")}
    else:
        factors["head"] = logits
    return factors


# ------------------------------------------------------------------------------------------- tokenizer


def byte_tokenizer_files(context: int) -> dict[str, dict[str, Any]]:
    """tokenizer.json and tokenizer_config.json of our byte vocabulary: a byte-level BPE without merges, id = byte + 4."""
    names = {PAD: "<|pad|>", EOS: "<|eos|>", BOS: "<|bos|>", UNK: "<|unk|>"}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    vocab = {name: i for i, name in names.items()} | {char: byte + SPECIALS for byte, char in enumerate(_byte_characters())}
    return {
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [{"id": i, "content": name, "special": True} | flags for i, name in names.items()],
            "pre_tokenizer": level,
            "decoder": level,
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": names[PAD], "eos_token": names[EOS],
            "bos_token": names[BOS], "clean_up_tokenization_spaces": False, "model_max_length": context,
        },
    }  # fmt: skip


def _byte_characters() -> list[str]:
    """What a byte-level vocabulary writes each byte as: its Latin-1 character where that is visible, else one from 256 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]
