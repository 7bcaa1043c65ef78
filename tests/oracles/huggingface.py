"""transformers' GPT-2 and Llama, opened from checkpoint folders; and mistakes made in such folders on purpose."""

import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from oracles import require
from scaling import hf, model, parameterization
from scaling.config import ModelConfig


def open_folder(folder: pathlib.Path) -> Any:
    """The torch model of a folder, as a user opens it; fails when a key is missing, unexpected or misshapen."""
    transformers = require("transformers")
    require("torch").set_num_threads(1)  # of small products, on cores that others use, a second thread only waits
    opened, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    return opened.eval()


def logits_of(opened: Any, tokens_BT: np.ndarray) -> np.ndarray:
    """(B, T, V) by a torch model."""
    torch = require("torch")
    with torch.no_grad():
        return opened(torch.from_numpy(tokens_BT).long()).logits.numpy()


def logits(c: ModelConfig, params: Any, tokens_BT: np.ndarray) -> np.ndarray:
    """(B, T, V) by the transformers model that ``hf.write`` makes of ours."""
    require("safetensors")
    with tempfile.TemporaryDirectory() as folder:
        hf.write(pathlib.Path(folder), c, params)
        return logits_of(open_folder(pathlib.Path(folder)), tokens_BT)


def draw(c: ModelConfig, seed: int = 0, gain: float = 1.5) -> Any:
    """Parameters so that every mistake shows: matrices wide (gain/sqrt(D)), and embeddings small, beside which an epsilon of
    1e-5 is not nothing: 1e-5 / (2 x .03^2) is half a per cent of what the first norm divides by.  The last norm makes up for
    a tied table in the logits.
    """
    normal, wide = np.random.default_rng(seed).standard_normal, gain * c.width**-0.5
    small = 0.03 / parameterization.input_multiplier(c)

    def leaf(path: Any, x: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        std = small if name in ("embedding", "positions") else wide
        value = (1.0 if name.endswith("gain") else 0.0) + std * normal(x.shape)
        if name.startswith("final_norm") and c.tied_head:
            value *= 0.3 / small
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, model.abstract_params(c))


# ------------------------------------------------------------------------------------------- mistakes

Tensors = dict[str, np.ndarray]
Mistake = Callable[[dict[str, Any], Tensors], None]


def copy_with(mistake: Mistake, folder: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
    """The checkpoint of one file in ``folder``, spoilt by ``mistake``."""
    numpy = require("safetensors.numpy")
    config = json.loads((folder / hf.CONFIG).read_text())
    tensors = numpy.load_file(folder / hf.SINGLE)
    mistake(config, tensors)
    to.mkdir()
    (to / hf.CONFIG).write_text(json.dumps(config))
    tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    numpy.save_file(tensors, to / hf.SINGLE, metadata={"format": "pt"})
    return to


def field(name: str, value: Any) -> Mistake:
    """Another value in config.json."""

    def spoil(config: dict[str, Any], tensors: Tensors) -> None:
        assert config[name] != value
        config[name] = value

    return spoil


def change(ending: str, f: Callable[[np.ndarray], np.ndarray]) -> Mistake:
    """``f`` of every tensor whose name ends so."""

    def spoil(config: dict[str, Any], tensors: Tensors) -> None:
        names = [name for name in tensors if name.endswith(ending)]
        assert names, ending
        for name in names:
            tensors[name] = f(tensors[name])

    return spoil


def swap(a: str, b: str) -> Mistake:
    """Exchanges the tensors that differ in ``a`` and ``b``."""

    def spoil(config: dict[str, Any], tensors: Tensors) -> None:
        names = [name for name in tensors if a in name]
        assert names, a
        for name in names:
            other = name.replace(a, b)
            tensors[name], tensors[other] = tensors[other], tensors[name]

    return spoil


def both(*mistakes: Mistake) -> Mistake:
    def spoil(config: dict[str, Any], tensors: Tensors) -> None:
        for mistake in mistakes:
            mistake(config, tensors)

    return spoil


def tied(config: dict[str, Any], tensors: Tensors) -> None:
    """A head of its own is thrown away."""
    del tensors["lm_head.weight"]
    config["tie_word_embeddings"] = True


def gpt2_mistakes(c: ModelConfig) -> Iterator[tuple[str, Mistake]]:
    """What one gets wrong between two GPT-2s of the shape ``c`` (biases, tied head)."""

    def qkv(order: str) -> Callable[[np.ndarray], np.ndarray]:
        def reorder(x: np.ndarray) -> np.ndarray:
            parts = dict(zip("qkv", np.split(x, 3, axis=-1), strict=True))
            return np.concatenate([parts[name] for name in order], axis=-1)

        return reorder

    def head_last(x: np.ndarray) -> np.ndarray:
        return np.swapaxes(x.reshape(*x.shape[:-1], 3, c.heads, c.head_size), -1, -2).reshape(x.shape)

    yield "GELU in its erf form", field("activation_function", "gelu")
    yield "LayerNorm epsilon 1e-6 for 1e-5", field("layer_norm_epsilon", 1e-6)
    yield "attention scores not scaled", change("c_attn.weight", lambda x: x * _q(c, c.head_size**0.5))
    yield "q and k exchanged", both(change("c_attn.weight", qkv("kqv")), change("c_attn.bias", qkv("kqv")))
    yield "head size before heads in q, k, v", both(change("c_attn.weight", head_last), change("c_attn.bias", head_last))
    yield "biases of q, k, v dropped", change("c_attn.bias", np.zeros_like)
    yield "output matrix transposed", change("attn.c_proj.weight", np.transpose)
    yield "the two norms of a block exchanged", swap("ln_1", "ln_2")
    yield "layers in another order", swap("h.0.", "h.1.")
    yield "positions off by one", change("wpe.weight", lambda x: np.roll(x, 1, axis=0))


def _q(c: ModelConfig, factor: float) -> np.ndarray:
    """(3 D,): ``factor`` in the columns of q."""
    return np.repeat(np.array([factor, 1, 1], np.float32), c.width)


def llama_mistakes(c: ModelConfig) -> Iterator[tuple[str, Mistake]]:
    """What one gets wrong between two Llamas of the shape ``c`` (grouped heads, a head of its own)."""

    def interleaved(x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, 2, c.head_size // 2, c.width).swapaxes(1, 2).reshape(x.shape)

    by_turns = [h for g in range(c.kv_heads) for h in range(c.heads) if h % c.kv_heads == g]

    def regrouped(axis: int) -> Callable[[np.ndarray], np.ndarray]:
        def reorder(x: np.ndarray) -> np.ndarray:
            shape = (c.heads, c.head_size, -1) if axis == 0 else (-1, c.heads, c.head_size)
            return np.take(x.reshape(shape), by_turns, axis=axis).reshape(x.shape)

        return reorder

    yield "rotary pairs side by side", both(change("q_proj.weight", interleaved), change("k_proj.weight", interleaved))
    yield "rotary base 5e5 for 1e4", field("rope_theta", 500_000.0)
    yield "RMSNorm epsilon 1e-6 for 1e-5", field("rms_norm_eps", 1e-6)
    yield "GELU for SiLU", field("hidden_act", "gelu")
    yield "gate and up exchanged", swap("gate_proj", "up_proj")
    yield "attention scores not scaled", change("q_proj.weight", lambda x: x * np.float32(c.head_size**0.5))
    yield "grouped heads by turns", both(change("q_proj.weight", regrouped(0)), change("o_proj.weight", regrouped(1)))
    yield "k and v exchanged", swap("k_proj", "v_proj")
    yield "output matrix transposed", change("o_proj.weight", np.transpose)
    yield "the two norms of a block exchanged", swap("input_layernorm", "post_attention_layernorm")
    yield "layers in another order", swap("layers.0.", "layers.1.")
    yield "head tied where it is not", tied


def mup_mistakes(c: ModelConfig) -> Iterator[tuple[str, Mistake]]:
    """Multipliers of a muP model of the shape ``c`` (rotary, a head of its own, depth rule) left out of the weights."""
    scale = (c.base_head_size * c.head_size) ** 0.5 / c.head_size
    branch = c.base_depth / c.depth
    yield "logits without 1/m", change("lm_head.weight", lambda x: x * np.float32(c.width / c.base_width))
    yield "attention with 1/sqrt(K)", change("q_proj.weight", lambda x: x / np.float32(scale))
    yield "attention branch without its multiplier", change("o_proj.weight", lambda x: x / np.float32(branch))
    yield "MLP branch without its multiplier", change("down_proj.weight", lambda x: x / np.float32(branch))
