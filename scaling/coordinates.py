"""The coordinate check: under muP, what a few steps of training change must not depend on the width.

    python -m scaling.coordinates                # writes coordinates.json, .png and .svg to ./analysis_out and says the verdict

Tiny models of several widths take a few AdamW steps on one repeated batch, without warm-up or clipping.  For every activation
the root mean square of its change is taken, as a geometric mean over seeds; the spread of a row is the largest over the
smallest of these among the widths.  Queries and the head begin at zero, since the initial scores and logits of random ones
shrink with the width and hide the trend (Yang et al. 2022, arXiv 2203.03466, appendix D.2).

The check trains, so it is here and not in ``analysis``, which draws its figure from the JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from scaling import cli, model, objectives, optim, parameterization, runs
from scaling.config import ConfigError, ModelConfig, OptimConfig, model_config
from scaling.tokenizer import BYTE_VOCAB, SPECIALS

LIMIT, SCORES_LIMIT = 1.3, 1.6  # spreads that pass; scores begin at zero and are products of two changes
SP_FAILS = 2.0  # what SP must exceed in ``SP_ROWS``, or the check could not fail
SP_ROWS = ("attn_out 0", "mlp_out 0", "scores 0", "residual")  # its embedding and logits can look flat
BASE_WIDTH, HEAD_SIZE, DEPTH, CONTEXT, WINDOWS, STEPS = 64, 16, 2, 32, 8, 5
WIDTHS, SEEDS, DEPTHS = (64, 128, 256, 512), (0, 1, 2), (2, 4, 8)
LR = 2.0**-9
OPTIM = OptimConfig(clip=0.0, eps=1e-8, weight_decay=0.1)
HIDDEN = ("q", "k", "v", "o", "gate", "up")  # with a fan-in that grows as the width; down's is ff


class Factors(NamedTuple):
    """By parameter name, what a variant multiplies muP's own multipliers with; names that are not there keep theirs.

    ``forward`` multiplies a parameter where it is used, which for the head is the logit multiplier, for queries the attention
    scale, and for o and down the branch multiplier.  All are arguments of one compiled program per shape.
    """

    init: Mapping[str, float] = {}
    forward: Mapping[str, float] = {}
    lr: Mapping[str, float] = {}
    weight_decay: Mapping[str, float] = {}
    eps: Mapping[str, float] = {}


@dataclasses.dataclass(frozen=True)
class Variant:
    """A parameterization to be checked: muP itself, SP, or muP with one mistake."""

    name: str
    factors: Callable[[ModelConfig], Factors]
    passes: bool = False  # what is expected of it
    lr: float = LR
    grow_heads: bool = False  # heads grow with the width instead of becoming more
    optimizer: str = "adamw"


def width_config(width: int, grow_heads: bool = False) -> ModelConfig:
    """The model of the check at one width."""
    size = HEAD_SIZE * width // BASE_WIDTH if grow_heads else HEAD_SIZE
    return model_config(
        depth=DEPTH, width=width, head_size=size, base_width=BASE_WIDTH, base_head_size=HEAD_SIZE, context=CONTEXT,
        vocab_size=BYTE_VOCAB, zero_init_q=True, zero_init_head=True, layers="scan",
    )  # fmt: skip


def depth_config(depth: int) -> ModelConfig:
    """The model of the depth check: CompleteP, at the base width."""
    return dataclasses.replace(width_config(BASE_WIDTH), depth=depth, depth_rule=True, base_depth=DEPTHS[0])


def page() -> np.ndarray:
    """A batch of windows (B, T + 1) of bytes: text of 300 made-up words, as frequent as Zipf's law has it."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("etaoinshrdlucmfw"), size=rng.integers(1, 9))) for _ in range(300)]
    often = 1 / np.arange(1, 301)
    text = " ".join(rng.choice(words, size=WINDOWS * CONTEXT, p=often / often.sum()))
    found = np.frombuffer(text.encode()[: WINDOWS * (CONTEXT + 1)], np.uint8).astype(np.int32)
    return found.reshape(WINDOWS, CONTEXT + 1) + SPECIALS


def activations(c: ModelConfig, params: Any, tokens_BT: Array) -> dict[str, Array]:
    """What the model computes on its way, by row: everything that enters or leaves a matrix, as its own blocks compute it."""
    rows = {"embedding": params["embedding"][tokens_BT] * parameterization.input_multiplier(c)}
    x_BTD = rows["embedding"]
    time = tokens_BT.shape[1]
    turns = model.rotary_turns(np.arange(time), c.head_size, c.rope_base)
    for i in range(c.depth):
        kept: dict[str, Array] = {}
        block = model.Block(c, causal=True, deterministic=True, forms=_recording(kept))
        x_BTD, _ = block.apply({"params": jax.tree.map(lambda x, i=i: x[i], params["blocks"])}, x_BTD, turns, None)
        rows |= {f"{row} {i}": value for row, value in kept.items()}
    y_BTD = model.Norm(c).apply({"params": params["final_norm"]}, x_BTD)
    logits_BTV = (y_BTD @ params["head"]) * parameterization.logit_multiplier(c)
    return rows | {"residual": x_BTD, "logits": logits_BTV}


def _recording(kept: dict[str, Array]) -> model.Forms:
    """The plain operations, which also leave what they see in ``kept``."""
    products = iter(("q", "k", "v", "attn_out", "gate", "up", "mlp_out"))  # in the order of a block

    def linear(x: Array, w: Array, **options: Any) -> Array:
        y = model.linear(x, w, **options)
        kept.update({"attn_out": {"attn_out": y}, "mlp_out": {"mlp_hid": x, "mlp_out": y}}.get(next(products), {}))
        return y

    def attention(q_BTHK: Array, k_BSHK: Array, v_BSHK: Array, *, scale: float, **options: Any) -> Array:
        scores_BHTS = scale * jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK)
        visible_TS = np.tri(scores_BHTS.shape[-1], dtype=bool)
        kept["scores"] = jnp.where(visible_TS, scores_BHTS, 0.0)
        kept["mix"] = model.attention(q_BTHK, k_BSHK, v_BSHK, scale=scale, **options)
        return kept["mix"]

    return model.Forms(linear=linear, attention=attention)


def _by_name(params: Any, factors: Mapping[str, float]) -> Any:
    """A tree like ``params`` of the factors of its leaves."""
    return jax.tree_util.tree_map_with_path(lambda path, _: factors.get(model.param_name(path), 1.0), params)


def _times(tree: Any, factors: Any) -> Any:
    return jax.tree.map(jnp.multiply, tree, factors)


def train(
    c: ModelConfig, params: Any, factors: Factors, lr: Any, windows: Array, optimizer: str = "adamw", steps: int = STEPS
) -> tuple[Any, Array]:
    """``steps`` steps of the model's own optimizer on one batch, with every multiplier times its factor.

    Args:
      params: as ``start`` draws them.
      factors: trees like ``params``, traced.
      lr: at the base width.

    Returns:
      The new parameters, and the loss before each step (steps,).
    """
    tx = optim.optimizer(c, dataclasses.replace(OPTIM, optimizer=optimizer))
    table = parameterization.rules(c, optimizer)
    decay = optim.per_class(params, lambda kind: OPTIM.weight_decay * table[kind].weight_decay * table[kind].lr)

    def loss(params: Any) -> Array:
        example = objectives.next_token(windows)
        logits_BTV = model.apply(c, _times(params, factors.forward), example.inputs_BT)
        return objectives.cross_entropy(logits_BTV, example.targets_BT)[0].mean()

    def step(carry: Any, _: None) -> tuple[Any, Array]:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        # As in the optimizer: an epsilon times e is a gradient divided by e.
        updates, state = tx.update(jax.tree.map(jnp.divide, grads, factors.eps), state, params)
        updates = jax.tree.map(lambda u, p, d, f: u - d * (f - 1) * p, updates, params, decay, factors.weight_decay)
        return (optim.apply_updates(params, _times(updates, factors.lr), lr), state), value

    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), None, length=steps)
    return params, losses


@functools.partial(jax.jit, static_argnums=(0, 1))
def _changes(c: ModelConfig, optimizer: str, params: Any, factors: Factors, lr: Array, windows: Array) -> dict[str, Array]:
    """By row, the root mean square of what training changed."""
    after, _ = train(c, params, factors, lr, windows, optimizer)
    rows = [activations(c, _times(p, factors.forward), windows[:, :-1]) for p in (params, after)]
    return jax.tree.map(lambda a, b: jnp.sqrt(jnp.mean(jnp.square(b - a))), *rows)


_init = jax.jit(model.init, static_argnums=0)


def start(c: ModelConfig, variant: Callable[[ModelConfig], Factors], seed: int) -> tuple[Any, Factors]:
    """Initial parameters of a variant, and its factors as trees like them."""
    params = _init(c, jax.random.key(seed))
    trees = Factors(*(_by_name(params, by_name) for by_name in variant(c)))
    return _times(params, trees.init), trees


def changes(c: ModelConfig, variant: Variant, seed: int) -> dict[str, float]:
    """The measurement: by row, the root mean square of (activation after training - activation at initialisation)."""
    params, factors = start(c, variant.factors, seed)
    found = _changes(c, variant.optimizer, params, factors, jnp.float32(variant.lr), jnp.asarray(page()))
    return {row: float(value) for row, value in jax.device_get(found).items()}


# ------------------------------------------------------------------------------------------------ variants


def _m(c: ModelConfig) -> float:
    return c.width / c.base_width


def _hidden(c: ModelConfig, power: float) -> dict[str, float]:
    """m ** power for every hidden matrix, with down's own m."""
    return dict.fromkeys(HIDDEN, _m(c) ** power) | {"down": (c.ff / c.base_ff) ** power}


def standard(c: ModelConfig) -> Factors:
    """What makes SP of muP: the ratio of the two tables."""
    sp = dataclasses.replace(c, parameterization="sp")
    ours, theirs = parameterization.rules(c), parameterization.rules(sp)

    def ratio(field: str) -> dict[str, float]:
        pairs = {n: (getattr(theirs[k], field), getattr(ours[k], field)) for n, (k, _) in parameterization.PARAMETERS.items()}
        return {n: a / b if b else 1.0 for n, (a, b) in pairs.items()}

    forward = {
        "head": parameterization.logit_multiplier(sp) / parameterization.logit_multiplier(c),
        "q": parameterization.attention_scale(sp) / parameterization.attention_scale(c),
    }
    return Factors(ratio("init_std"), forward, ratio("lr"), ratio("weight_decay"), ratio("eps"))


def standard_fan_in(c: ModelConfig) -> Factors:
    """SP with the initial scales of muP: 1/sqrt(fan-in), embedding 1."""
    return standard(c)._replace(init={})


def _every(value: float) -> dict[str, float]:
    return dict.fromkeys(parameterization.PARAMETERS, value)


MUP = Variant("muP", lambda c: Factors(), passes=True)
SP = Variant("SP, std .02", standard)
SP_FAN_IN = Variant("SP, std 1/sqrt(fan-in)", standard_fan_in)
GROWING = Variant("muP, growing heads", lambda c: Factors(), passes=True, grow_heads=True)

MUON = Variant("muP, Muon", lambda c: Factors(), passes=True, optimizer="muon")
# Each of these must be caught.
MISTAKES = (
    Variant("hidden lr not over m", lambda c: Factors(lr=_hidden(c, 1))),
    Variant("down lr not over mF", lambda c: Factors(lr={"down": c.ff / c.base_ff})),
    Variant("gate lr not over m", lambda c: Factors(lr={"gate": _m(c)})),
    Variant("q, k lr not over m", lambda c: Factors(lr={"q": _m(c), "k": _m(c)})),
    Variant("hidden init std constant", lambda c: Factors(init=_hidden(c, 0.5))),
    Variant("logits over m twice", lambda c: Factors(forward={"head": 1 / _m(c)})),
    Variant("logits not over m", lambda c: Factors(forward={"head": _m(c)})),
    Variant("logits over sqrt(m)", lambda c: Factors(forward={"head": math.sqrt(_m(c))})),
    Variant("logits and head lr over m", lambda c: Factors(lr={"head": 1 / _m(c)})),
    Variant("embedding lr over m", lambda c: Factors(lr={"embedding": 1 / _m(c)})),
    Variant("embedding std 1/sqrt(D)", lambda c: Factors(init={"embedding": c.width**-0.5})),
    Variant(
        "scores over sqrt(K), K grows", lambda c: Factors(forward={"q": math.sqrt(c.head_size / HEAD_SIZE)}), grow_heads=True
    ),
    Variant("eps 1e-4, not over m", lambda c: Factors(eps=_every(1e4 * _m(c)))),
    Variant("eps 1e-4, only hidden over m", lambda c: Factors(eps=_every(1e4 * _m(c)) | dict.fromkeys((*HIDDEN, "down"), 1e4))),
)
# Multipliers of Muon's learning rate that hold for other scales of its update.
MUON_MISTAKES = (
    Variant("Muon lr as Adam's, over m", lambda c: Factors(lr=_hidden(c, -0.5)), optimizer="muon"),
    Variant("Muon lr not divided", lambda c: Factors(lr=_hidden(c, 0.5)), optimizer="muon"),
)
# The first is right; the check cannot see that the others are wrong, unit tests must.
INVISIBLE = (
    Variant("eps 1e-4, all over m", lambda c: Factors(eps=_every(1e4)), passes=True),
    Variant("eps 1e-8, not over m", lambda c: Factors(eps=_every(_m(c))), passes=True),
    Variant("decay not times m", lambda c: Factors(weight_decay=_hidden(c, -1)), passes=True),
    Variant("gain lr over m", lambda c: Factors(lr={"gain": 1 / _m(c)}), passes=True),
)


def _shallow(c: ModelConfig, init: float) -> Factors:
    """The depth rule undone: branches as they are, o and down drawn ``init`` times as large as the rule has them."""
    deeper = c.depth / c.base_depth
    blocks = ("q", "k", "v", "o", "gate", "up", "down")
    branch = {"o": deeper, "down": deeper}
    return Factors(init={"o": init, "down": init}, forward=branch, eps=dict.fromkeys(blocks, deeper))


DEPTH_VARIANTS = (
    Variant("no depth rule", lambda c: _shallow(c, math.sqrt(2 * c.base_depth))),
    Variant("o, down over sqrt(2 depth)", lambda c: _shallow(c, math.sqrt(c.base_depth / c.depth))),
    Variant("CompleteP", lambda c: Factors(), passes=True),
)


# ------------------------------------------------------------------------------------------------ verdict


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A variant, measured: by row the change at each shape (geometric mean over seeds) and its spread over the shapes."""

    variant: Variant
    shapes: tuple[int, ...]  # widths, or depths
    change: dict[str, tuple[float, ...]]

    @property
    def spread(self) -> dict[str, float]:
        return {row: max(values) / min(values) if min(values) > 0 else math.inf for row, values in self.change.items()}

    @property
    def worst(self) -> str:
        """The row that exceeds its limit by most."""
        return max(self.spread, key=lambda row: self.spread[row] / limit(row))

    @property
    def flat(self) -> bool:
        """Whether no row exceeds its limit."""
        return self.spread[self.worst] <= limit(self.worst)

    @property
    def as_expected(self) -> bool:
        """Whether it passes if it should, and else fails; SP must fail by far, and where it matters."""
        far = self.variant not in (SP, SP_FAN_IN) or all(self.spread[row] > SP_FAILS for row in SP_ROWS)
        return self.flat == self.variant.passes and far

    def words(self) -> str:
        """One line of the verdict."""
        what = f"{self.worst} changes {self.spread[self.worst]:.2f}-fold (limit {limit(self.worst):g})"
        verdict = ("passes" if self.variant.passes else "caught") if self.as_expected else "NOT AS EXPECTED"
        return f"{verdict:>15}  {self.variant.name:<30} {what}"

    def to_json(self) -> dict[str, Any]:
        """All numbers."""
        return {
            "name": self.variant.name, "passes": self.variant.passes, "as_expected": self.as_expected, "shapes": self.shapes,
            "optimizer": self.variant.optimizer, "worst": self.worst, "change": self.change, "spread": self.spread,
        }  # fmt: skip


def limit(row: str) -> float:
    """The spread up to which a row passes."""
    return SCORES_LIMIT if row.startswith("scores") else LIMIT


def measure(variant: Variant, shapes: Iterable[int], seeds: Iterable[int], of_depth: bool = False) -> Outcome:
    """One variant over widths, or over depths."""
    shapes, seeds = tuple(shapes), tuple(seeds)
    configs = [depth_config(s) if of_depth else width_config(s, variant.grow_heads) for s in shapes]
    found = [[changes(c, variant, seed) for seed in seeds] for c in configs]
    rows = set.intersection(*(set(one[0]) for one in found))
    rows = {"residual"} if of_depth else rows  # deeper models have more rows; what they have in common is their sum
    change = {r: tuple(math.exp(float(np.mean([math.log(s[r]) for s in at]))) for at in found) for r in sorted(rows)}
    return Outcome(variant, shapes, change)


# ------------------------------------------------------------------------------------------------ command

GROUPS = {
    "width": (MUP, GROWING, MUON, SP, SP_FAN_IN),
    "mistakes": (*MISTAKES, *MUON_MISTAKES),
    "invisible": INVISIBLE,
    "depth": DEPTH_VARIANTS,
}
TITLES = {
    "width": "Parameterizations over widths {}:",
    "mistakes": "Mistakes made on purpose:",
    "invisible": "muP at a large epsilon, and three mistakes that only unit tests can see:",
    "depth": "The final residual over depths {} at width 64:",
}


def parser() -> cli.Parser:
    """The command line."""
    assert __doc__ is not None
    out = cli.Parser(prog="python -m scaling.coordinates", description=__doc__)
    out.add_argument(
        "--widths", default=",".join(map(str, WIDTHS)), help="multiples of 16, at least two (default: %(default)s)"
    )
    out.add_argument("--seeds", type=int, default=len(SEEDS), help="how many (default: %(default)s)")
    out.add_argument("--out", default="analysis_out", metavar="FOLDER", help="where to write (default: %(default)s)")
    return out


def _checked(args: argparse.Namespace) -> tuple[int, ...]:
    """The widths.

    Raises:
      ConfigError: for widths or a number of seeds that cannot be measured.
    """
    words = args.widths.split(",")
    widths = tuple(sorted({int(w) for w in words if w.strip().isdigit()}))
    problems = []
    if len(widths) < 2 or not all(w.strip().isdigit() for w in words) or any(w < HEAD_SIZE or w % HEAD_SIZE for w in widths):
        problems.append(f"--widths {args.widths}: needs two or more multiples of {HEAD_SIZE}, such as 64,256")
    if args.seeds < 1:
        problems.append(f"--seeds {args.seeds}: needs at least 1")
    if problems:
        raise ConfigError(problems, "command line")
    return widths


def run(args: argparse.Namespace) -> int:
    """Measures, writes, draws and tells; 1 where something is not as expected."""
    widths, seeds, out = _checked(args), tuple(range(args.seeds)), pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Outcome]] = {}
    for group, variants in GROUPS.items():
        shapes = DEPTHS if group == "depth" else widths
        print(TITLES[group].format(", ".join(map(str, shapes))), flush=True)
        found[group] = []
        for variant in variants:
            found[group].append(measure(variant, shapes, seeds, of_depth=group == "depth"))
            print(found[group][-1].words(), flush=True)
    fine = all(o.as_expected for outcomes in found.values() for o in outcomes)
    runs.write_json(out / "coordinates.json", {
        "limit": LIMIT, "scores_limit": SCORES_LIMIT, "lr": LR, "steps": STEPS, "seeds": seeds, "base_width": BASE_WIDTH,
        "as_expected": fine, "groups": {group: [o.to_json() for o in outcomes] for group, outcomes in found.items()},
    })  # fmt: skip
    drawn = subprocess.run([sys.executable, "-m", "analysis.plot_coordinates", str(out / "coordinates.json")], check=False)
    print("every one as expected" if fine else "NOT every one as expected")
    return 0 if fine and drawn.returncode == 0 else 1


def main(argv: list[str] | None = None) -> int:
    """The command."""
    return cli.guarded(lambda: run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
