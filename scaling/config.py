"""What a run is: frozen dataclasses, the size dial, units and validation.  Imports no jax, so planning is instant.

A config lives in two forms.  At the edge (files, command line) it is an ``ml_collections.ConfigDict`` whose fields may be
left empty (``None``: "by rule").  Inside it is a frozen ``TrainConfig`` in which every rule has been applied.  ``resolve`` is
the only way from the first to the second, and it reports every problem at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from scaling import sizes, units
from scaling.evals.items import FORMATS
from scaling.mixture import whole_weights
from scaling.tokenizer import BYTE_VOCAB

NORMS = ("rmsnorm", "layernorm")
NORM_POSITIONS = ("pre", "post")
POSITIONS = ("rotary", "learned", "sinusoidal", "none")
ACTIVATIONS = ("swiglu", "gelu", "relu")
ARCHITECTURES = ("causal",)
PARAMETERIZATIONS = ("mup", "sp")
OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("constant", "linear", "cosine", "wsd")
REMATS = ("none", "dots", "full")
LAYERS = ("unroll", "scan")
DTYPES = ("float32", "bfloat16")


UNNAMED = "config"  # where a problem is, as long as nobody has said which file


class ConfigError(ValueError):
    """A config that cannot run.  ``problems`` holds one sentence each: field, value, remedy."""

    def __init__(self, problems: list[str], where: str = UNNAMED):
        self.problems, self.where = problems, where
        super().__init__(f"{where}: " + "\n  ".join(["cannot run:", *problems] if len(problems) > 1 else problems))


@contextlib.contextmanager
def in_file(name: str) -> Iterator[None]:
    """Problems that name no place are those of the file ``name``."""
    try:
        yield
    except ConfigError as error:
        if error.where != UNNAMED:
            raise
        raise ConfigError(error.problems, name) from None


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The shape of a Transformer and its parameterization; every number is final (see ``sizes`` for the rules).

    Letters of the notation table: D ``width``, H ``heads``, G ``kv_heads``, K ``head_size``, F ``ff``, V ``vocab_size``,
    T ``context``.
    """

    architecture: str = "causal"
    vocab_size: int = 260
    context: int = 192
    depth: int = 4
    width: int = 64
    heads: int = 8
    kv_heads: int = 8
    head_size: int = 8
    ff: int = 168
    norm: str = "rmsnorm"
    norm_bias: bool = False  # LayerNorm only
    norm_position: str = "pre"
    norm_eps: float = 1e-6
    qk_norm: bool = False
    positions: str = "rotary"
    rope_base: float = 10_000.0
    activation: str = "swiglu"
    bias: bool = False
    tied_head: bool = False
    dropout: float = 0.0
    z_loss: float = 0.0
    dtype: str = "float32"  # of activations and matmuls; parameters, softmax, norms and loss are always float32
    parameterization: str = "mup"
    base_width: int = 32  # muP: the width at which SP and muP coincide and at which the learning rate is quoted
    base_ff: int = 88
    base_head_size: int = 8
    depth_rule: bool = False  # CompleteP: residual branches times base_depth / depth, see scaling.parameterization
    base_depth: int = 4  # the depth at which the depth rule changes nothing
    zero_init_q: bool = True  # attention starts uniform; better on the default ladder, see configs/ladder.py
    zero_init_head: bool = False
    layers: str = "unroll"  # machine matters: these two change no result beyond rounding
    remat: str = "none"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which tokens, and in what order (the order seed is derived from ``TrainConfig.seed``)."""

    store: str = "tokens/apidocs"  # made by scaling.corpus or scaling.markov; a default one is built when it is missing
    mixture: tuple[tuple[str, float], ...] = ()  # instead of store, several with weights: (('tokens/a', 3), ('tokens/b', 1))
    vocab: str = "bytes"  # 'bytes', or the size of a BPE vocabulary
    epochs: float = 1.0  # how often a store may be seen; a budget beyond it is refused
    val_windows: int = 512  # of each store; fixed, the same on every rung
    rest: float = 1.0  # training loss weight of targets outside of answers, which reach from a colon to the end of the line
    loss_of: str = ""  # the store of a mixture whose own loss is the run's, in training and validation; empty: the mixture's

    @property
    def sources(self) -> tuple[tuple[str, float], ...]:
        """Stores and weights; one store is a mixture of one."""
        return self.mixture or ((self.store, 1.0),)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its schedule.  Durations are text with a unit (``scaling.units``)."""

    optimizer: str = "adamw"  # or 'muon' for the matrices of the blocks, with AdamW for the rest
    lr: float = 8e-3  # peak, at ``ModelConfig.base_width``
    schedule: str = "wsd"
    warmup: str = "rule"  # 'rule': min(N tokens, 10 %), at least 20 steps
    cooldown: str = "20%"  # WSD: the last part of the budget, lr falls as 1 - sqrt
    final_lr: float = 0.0  # linear and cosine end here, as a fraction of the peak
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0


@dataclasses.dataclass(frozen=True)
class MachineConfig:
    """How, not what: nothing here changes a result beyond rounding (but the masks of dropout, which micro-batches draw each for
    themselves), and none of it is part of a run's identity.
    """

    data: int = 1  # mesh axes; 0 takes the devices that the other axes leave
    fsdp: int = 1
    tensor: int = 1
    micro_batches: int = 0  # gradient accumulation; 0: as suits the platform (step.micro_batches)
    checkpoint_minutes: float = 2.0
    compile_cache: str = "~/.cache/scaling/xla"


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """What a run is asked at its end, and at its marks while it trains (``scaling.evals``); it changes no weight."""

    suite: str = ""  # 'laptop', a folder of tasks, 'hf:NAME'; empty: nothing is asked
    tasks: tuple[str, ...] = ()  # of the suite; empty: all
    formats: tuple[str, ...] = ("cloze",)
    shots: tuple[int, ...] = (0,)  # of formats that generate, which costs most, only the largest number
    items: int = 500  # of each task, at most
    marks: bool = True  # whether at each of ``TrainConfig.marks``, and at the end of a trunk, too


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One run, completely."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    machine: MachineConfig = MachineConfig()
    probe: ProbeConfig = ProbeConfig()
    budget: str = "20 tokens/param"  # per non-embedding parameter
    batch: str = "768 tokens"  # or a rule's name, see scaling.units.BATCH_RULES
    marks: tuple[str, ...] = ()  # durations at which a permanent checkpoint is kept, for branches
    evals: int = 4  # validations, evenly spaced, the last one at the end
    seed: int = 0
    run_dir: str = "runs/one"


POSITIVE = (
    "vocab_size", "context", "depth", "width", "heads", "kv_heads", "head_size", "ff", "base_width", "base_ff",
    "base_head_size", "base_depth",
)  # fmt: skip

# The edge form: the same tree with ``None`` where a rule decides, and the dial.
MODEL_RULED = ("depth", "width", "heads", "kv_heads", "head_size", "ff", "vocab_size", "base_ff", "base_head_size")


def default_dict() -> dict[str, Any]:
    """The default config as a plain nested dict, ruled fields ``None``; what ``configs/*.py`` start from."""
    tree = dataclasses.asdict(TrainConfig())
    tree["model"] |= dict.fromkeys(MODEL_RULED) | {"size": None}
    tree["marks"] = ()
    return tree


def model_config(size: str | None = None, **fields: Any) -> ModelConfig:
    """A whole ``ModelConfig`` from one dial: ``model_config('1.2M')`` or ``model_config(depth=6)``; fields override.

    Raises:
      ConfigError: naming every field that is unknown or does not fit.
    """
    problems: list[str] = []
    config = _model({"size": size, **fields}, DataConfig(), problems)
    if problems:
        raise ConfigError(problems, "model")
    return config


def size(target: str, **fields: Any) -> ModelConfig:
    """The dial: ``size('1.2M')`` is the shape nearest to so many block parameters, by the rules of ``scaling.sizes``."""
    return model_config(target, **fields)


def resolve(tree: Mapping[str, Any], where: str = "config") -> TrainConfig:
    """Applies every rule and checks everything; ``tree`` is a ConfigDict or nested dict as ``default_dict`` gives.

    Raises:
      ConfigError: with all problems, each naming field, value and remedy.
    """
    tree = tree.to_dict() if hasattr(tree, "to_dict") else dict(tree)
    problems: list[str] = []
    data = _build(DataConfig, _with_mixture(tree.get("data", {}), problems), "data", problems)
    model = _model(tree.get("model", {}), data, problems)
    optim = _build(OptimConfig, tree.get("optim", {}), "optim", problems)
    machine = _build(MachineConfig, tree.get("machine", {}), "machine", problems)
    probe = _build(ProbeConfig, tree.get("probe", {}), "probe", problems)
    parts = {"model": model, "data": data, "optim": optim, "machine": machine, "probe": probe}
    rest = {k: v for k, v in tree.items() if k not in (*parts, "sweep")}  # sweep: get_sweep's own
    marks = rest.get("marks") or ()
    if isinstance(marks, str | list | tuple):
        rest["marks"] = (marks,) if isinstance(marks, str) else tuple(marks)
    else:
        problems.append(f"marks={marks!r}: must be a list of durations, such as ('50%',)")
        del rest["marks"]
    config = _build(TrainConfig, rest | parts, "", problems)
    _check_train(config, problems)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), where)
    return config


def data_of(tree: Mapping[str, Any]) -> DataConfig | None:
    """The data of a config that may have other faults; None where the data has some (``resolve`` tells of them)."""
    problems: list[str] = []
    data = _build(DataConfig, _with_mixture(dict(tree["data"]), problems), "data", problems)
    return None if problems else data


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """A resolved config as plain JSON types; ``from_resolved`` is its inverse."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_resolved(tree: Mapping[str, Any]) -> TrainConfig:
    """A ``TrainConfig`` from what ``to_dict`` wrote."""
    return resolve(tree, "stored config")


def identity(config: TrainConfig) -> dict[str, Any]:
    """The part of a config that decides its result: no paths, no machine matters."""
    tree = to_dict(config)
    del tree["run_dir"], tree["machine"], tree["probe"], tree["data"]["store"]
    mixture, loss_of = tree["data"].pop("mixture"), tree["data"].pop("loss_of")
    if tree["data"]["rest"] == 1.0:
        del tree["data"]["rest"]  # runs of before there was a choice keep their digests
    if loss_of:
        tree["data"]["loss_of"] = [path for path, _ in mixture].index(loss_of)
    if mixture:
        # floats, as configs hold them: runs on weights in lowest terms keep their digests
        tree["data"]["weights"] = [float(weight) for weight in whole_weights([weight for _, weight in mixture])]
    del tree["model"]["layers"], tree["model"]["remat"]
    return tree


def digest(config: TrainConfig, data_fingerprint: str, parent: str | None = None, mark_tokens: int | None = None) -> str:
    """Sixteen hex digits: what a member is, from its resolved config, its data, and the trunk state it starts from."""
    what = [identity(config), data_fingerprint, parent, mark_tokens]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def difference(old: Any, new: Any, path: str = "") -> list[str]:
    """``['model.width: 64 -> 96', …]``, for a refusal that tells what changed."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted(old.keys() | new.keys())
        return [d for k in keys for d in difference(old.get(k), new.get(k), f"{path}.{k}" if path else str(k))]
    old, new = (list(x) if isinstance(x, tuple) else x for x in (old, new))
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


def _build(cls: type, values: Mapping[str, Any], path: str, problems: list[str]) -> Any:
    """``cls(**values)`` with each field's type checked against its default."""
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    prefix = f"{path}." if path else ""
    good: dict[str, Any] = {}
    for name, given in values.items():
        value = tuple(given) if isinstance(given, list) and isinstance(defaults.get(name), tuple) else given
        value = _as_text(value, defaults.get(name))
        if name not in defaults:
            known = [prefix + d for d in defaults]
            problems.append(f"{prefix}{name}={value!r}: no such field.{units.did_you_mean(prefix + name, known)}")
        elif (error := _type_error(value, defaults[name])) is not None:
            problems.append(f"{prefix}{name}={value!r}: {error}")
        else:
            good[name] = float(value) if isinstance(defaults[name], float) else value
    return cls(**good)


def _with_mixture(data: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """``data`` with its mixture as pairs of a path and a weight; left out, and told of, where it is no such thing."""
    out = dict(data)
    given = out.pop("mixture", None) or ()
    pairs = given if isinstance(given, list | tuple) else [given]
    good = [
        (pair[0], float(pair[1]))
        for pair in pairs
        if isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) and _type_error(pair[1], 1.0) is None
    ]
    if len(good) < len(pairs):
        problems.append(
            f"data.mixture={given!r}: must be pairs of a store and its weight, such as (('tokens/a', 3), ('tokens/b', 1))"
        )
        return out
    paths = [path for path, _ in good]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    problems += [f"data.mixture: {path!r} is named twice; add its weights" for path in twice]
    if good and out.get("store", DataConfig.store) != DataConfig.store:
        problems.append(f"data.store={out['store']!r} and data.mixture are both given; leave one of them out")
    try:
        whole_weights([weight for _, weight in good or [("", 1.0)]])
    except ValueError as error:
        problems.append(f"data.mixture={given!r}: {error}")
    return out | {"mixture": tuple(good)}


def _as_text(value: Any, default: Any) -> Any:
    """A number given for a text field (``data.vocab=4096`` on a command line) is its text."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if isinstance(default, str) and number else value


def _type_error(value: Any, default: Any) -> str | None:
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "must be True or False"
    if isinstance(default, int):
        return None if isinstance(value, int) and not isinstance(value, bool) else "must be a whole number"
    if isinstance(default, float):
        ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return None if ok else "must be a finite number"
    return None if isinstance(value, type(default)) else f"must be a {type(default).__name__}, such as {default!r}"


def _model(tree: Mapping[str, Any], data: DataConfig, problems: list[str]) -> ModelConfig:
    """Fills what the rules decide; explicit values win."""
    given = {k: v for k, v in tree.items() if v is not None}
    size = given.pop("size", None)
    before = len(problems)
    vocab = BYTE_VOCAB if data.vocab == "bytes" else int(data.vocab) if data.vocab.isdigit() else 0
    if vocab < 2:
        problems.append(f"data.vocab={data.vocab!r}: must be 'bytes' or a vocabulary size such as '4096'")
    probe = _build(ModelConfig, {"vocab_size": max(2, vocab)} | given, "model", problems)
    problems += [f"model.{n}={given[n]}: must be at least 1" for n in POSITIVE if n in given and getattr(probe, n) < 1]
    if len(problems) > before:
        return probe
    given.setdefault("vocab_size", vocab)
    try:
        given |= sizes.shape(size, given, activation=probe.activation)
    except ValueError as error:
        problems.append(f"model.{error}")
        return probe
    config = _build(ModelConfig, given, "model", problems)
    _check_model(config, problems)
    return config


def _choice(problems: list[str], path: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        problems.append(f"{path}={value!r}: must be one of {', '.join(allowed)}.{units.did_you_mean(value, allowed)}")


def _check_model(c: ModelConfig, problems: list[str]) -> None:
    choices = {
        "architecture": ARCHITECTURES, "norm": NORMS, "norm_position": NORM_POSITIONS, "positions": POSITIONS,
        "activation": ACTIVATIONS, "parameterization": PARAMETERIZATIONS, "layers": LAYERS, "remat": REMATS, "dtype": DTYPES,
    }  # fmt: skip
    for name, allowed in choices.items():
        _choice(problems, f"model.{name}", getattr(c, name), allowed)
    for name in ("norm_eps", "rope_base"):
        if getattr(c, name) <= 0:
            problems.append(f"model.{name}={getattr(c, name)}: must be positive")
    if c.z_loss < 0:
        problems.append(f"model.z_loss={c.z_loss}: must not be negative")
    if c.heads * c.head_size != c.width:
        problems.append(
            f"model.width={c.width}: not {c.heads} heads x head_size {c.head_size} = {c.heads * c.head_size}; "
            f"choose a width that heads divide, or set model.heads and model.head_size"
        )
    if c.kv_heads > 0 and c.heads % c.kv_heads:
        problems.append(f"model.kv_heads={c.kv_heads}: must divide heads={c.heads}")
    if c.positions == "rotary" and c.head_size % 2:
        problems.append(f"model.head_size={c.head_size}: must be even for rotary positions")
    if not 0 <= c.dropout < 1:
        problems.append(f"model.dropout={c.dropout}: must be in [0, 1)")
    if c.depth_rule and c.parameterization != "mup":
        problems.append(f"model.depth_rule=True: is a rule of mup, not of {c.parameterization!r}; drop one of the two")
    if c.depth_rule and c.norm_position != "pre":
        problems.append("model.depth_rule=True: needs norm_position='pre'; a norm after the sum would undo it")
    if c.norm == "rmsnorm" and c.norm_bias:
        problems.append("model.norm_bias=True: RMSNorm has no bias; use model.norm='layernorm' or drop it")


def _check_probe(c: ProbeConfig, problems: list[str]) -> None:
    """What can be told without reading the suite."""
    problems += [f"probe.tasks={name!r}: must be the name of a task" for name in c.tasks if not isinstance(name, str)]
    for name in c.formats:
        _choice(problems, "probe.formats", str(name), FORMATS)
    for shots in c.shots:
        if _type_error(shots, 0) is not None or shots < 0:
            problems.append(f"probe.shots={c.shots!r}: must be whole numbers, none negative, such as (0, 5)")
    if not c.formats or not c.shots:
        problems.append(f"probe.{'shots' if c.formats else 'formats'}=(): must name at least one")
    if c.items < 1:
        problems.append(f"probe.items={c.items}: must be at least 1; for no evals leave probe.suite empty")


def _check_train(c: TrainConfig, problems: list[str]) -> None:
    _choice(problems, "optim.schedule", c.optim.schedule, SCHEDULES)
    _choice(problems, "optim.optimizer", c.optim.optimizer, OPTIMIZERS)
    vocab = BYTE_VOCAB if c.data.vocab == "bytes" else int(c.data.vocab) if c.data.vocab.isdigit() else 0
    if 0 < c.model.vocab_size < vocab:
        of = f"{vocab} of data.vocab={c.data.vocab!r}"
        problems.append(f"model.vocab_size={c.model.vocab_size}: smaller than the vocabulary, {of}; leave it out")
    for name in ("lr", "eps"):
        if getattr(c.optim, name) <= 0:
            problems.append(f"optim.{name}={getattr(c.optim, name)}: must be positive")
    for name in ("weight_decay", "clip", "final_lr"):
        if getattr(c.optim, name) < 0:
            problems.append(f"optim.{name}={getattr(c.optim, name)}: must not be negative")
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(c.optim, name) < 1:
            problems.append(f"optim.{name}={getattr(c.optim, name)}: must be in [0, 1)")
    if c.data.loss_of and c.data.loss_of not in dict(c.data.mixture):
        known = ", ".join(repr(path) for path, _ in c.data.mixture) or "no mixture"
        problems.append(f"data.loss_of={c.data.loss_of!r}: must be a store of data.mixture; there is {known}")
    _check_probe(c.probe, problems)
    if c.data.epochs <= 0:
        problems.append(f"data.epochs={c.data.epochs}: must be positive")
    if not 0 < c.data.rest <= 1:
        problems.append(f"data.rest={c.data.rest:g}: must be above 0, at most 1")
    elif c.data.rest != 1 and c.data.vocab != "bytes":
        problems.append(f"data.rest={c.data.rest:g}: answers are told by their bytes; use data.vocab='bytes', or data.rest=1")
    if not 1 <= c.data.val_windows <= 512:
        problems.append(f"data.val_windows={c.data.val_windows}: must be from 1 to 512")
    if c.evals < 1:
        problems.append(f"evals={c.evals}: must be at least 1 (the last one is the result)")
    problems += [
        f"machine.{axis}={getattr(c.machine, axis)}: must not be negative; 0 takes the devices that the other axes leave"
        for axis in ("data", "fsdp", "tensor")
        if getattr(c.machine, axis) < 0
    ]
    if len(left := [a for a in ("data", "fsdp", "tensor") if getattr(c.machine, a) == 0]) > 1:
        problems.append(f"machine.{left[1]}=0: only one axis may take the devices that the others leave, and {left[0]} does")
    if c.machine.micro_batches < 0:
        problems.append(f"machine.micro_batches={c.machine.micro_batches}: must be at least 1; 0 leaves it to the platform")
    durations = {"budget": c.budget, "optim.cooldown": c.optim.cooldown} | {f"marks[{i}]": m for i, m in enumerate(c.marks)}
    if c.optim.warmup != "rule":
        durations["optim.warmup"] = c.optim.warmup
    for path, text in durations.items():
        try:
            if units.parse_duration(text).unit == "%" and path == "budget":
                problems.append(f"{path}={text!r}: a part of what? give it in another unit, such as '20 tokens/param'")
        except ValueError as error:
            problems.append(f"{path}={text!r}: {error}")
    if c.model.context < 1 or c.machine.micro_batches < 0:
        return  # a batch cannot be checked against them
    try:
        units.check_batch(c.batch, c.model.context, c.machine)
    except ValueError as error:
        problems.append(str(error))
