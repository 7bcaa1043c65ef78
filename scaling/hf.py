"""Hugging Face checkpoint folders in and out, GPT-2 and Llama: config.json and safetensors, one file or shards.  No torch.

    python -m scaling.hf export --run runs/ladder/150K-2.4M --to exported     # AutoModelForCausalLM.from_pretrained opens it
    python -m scaling.hf import --from exported --to runs/imported            # a run directory to go on from

What our model has and theirs do not is folded into the weights: the multiplier of the embedding into its table, that of the
logits into the head (of a tied table, into the last norm), those of residual branches into their last matrix, an attention
scale other than 1/sqrt(head_size) into q.  Each weight is multiplied once in float32, so logits agree to rounding.  What is
read is an SP model, whose multipliers are 1.  What has no place there (sinusoids, post-norm, ...) is refused by name.

Dropout is a setting of training and is not read.  Tensors pass one at a time: of a model there are in memory its float32
parameters and one shard of the output.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import pprint
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import ml_dtypes  # noqa: F401  (teaches numpy bfloat16, which safetensors asks for by name)
import numpy as np
import orbax.checkpoint as orbax

from scaling import checkpoint, cli, flops, model, optim, progress, runs, step, sweep, tokenizer
from scaling.config import ConfigError, ModelConfig, TrainConfig, default_dict, from_resolved, model_config, resolve
from scaling.families import FAMILIES, Family, Fields, Tensor, byte_tokenizer_files, family_of, folded

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
SHARD_BYTES = 2 << 30
FLOATS = ("F64", "F32", "F16", "BF16")
TRAINING = ("model.dtype", "model.dropout", "model.z_loss", "model.layers", "model.remat")  # a checkpoint decides none of them


# ------------------------------------------------------------------------------------------- reading


def read(folder: str | os.PathLike[str]) -> tuple[ModelConfig, Any]:
    """The model in ``folder``: its config (SP, float32) and the tree that ``model.apply`` takes, float32 numpy arrays.

    Raises:
      ConfigError: naming the file and every field or tensor that is missing, of another shape or cannot be expressed, before
        any tensor is read.
    """
    root = pathlib.Path(folder)
    c, family = _read_config(root / CONFIG)
    shapes = _shapes(c)
    with contextlib.ExitStack() as stack:
        files = _open(root, stack)
        tensors = _locate(files, family, c, shapes, root)
        leaves = {path: np.empty(shape, np.float32) for path, shape in shapes.items()}
        for tensor, i, name in tensors:
            value = files[name].get_tensor(name).astype(np.float32, copy=False)
            of = [shapes[path][1:] if tensor.stacked else shapes[path] for path in tensor.leaves]
            for path, part in zip(tensor.leaves, tensor.split(value, of), strict=True):
                leaves[path][i if tensor.stacked else ...] = part
    return c, _tree(leaves)


def read_config(folder: str | os.PathLike[str]) -> ModelConfig:
    """The ``ModelConfig`` (SP, float32) of the checkpoint in ``folder``; raises as ``read``."""
    return _read_config(pathlib.Path(folder) / CONFIG)[0]


def _read_config(path: pathlib.Path) -> tuple[ModelConfig, Family]:
    content = _json(path)
    problems: list[str] = []
    kind = content.get("model_type")
    family = next((f for f in FAMILIES if f.model_type == kind), None)
    if family is None:
        known = " and ".join(f.model_type for f in FAMILIES)
        raise ConfigError([f"model_type={json.dumps(kind)}: only {known} can be read; choose such a checkpoint"], str(path))
    if content.get("quantization_config"):
        problems.append("quantization_config: weights are quantized; choose the checkpoint in float32, float16 or bfloat16")
    fields = family.fields(Fields(content, problems))
    if not problems:
        try:
            return model_config(parameterization="sp", zero_init_q=False, **fields), family
        except ConfigError as error:
            problems = error.problems
    raise ConfigError(problems, str(path))


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(["no such file; give the folder that save_pretrained wrote"], str(path)) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"not valid JSON ({error}); fetch the file again"], str(path)) from None
    if not isinstance(content, dict):
        raise ConfigError(["not a JSON object; fetch the file again"], str(path))
    return content


def _open(root: pathlib.Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Tensor name -> the open file that holds it; nothing is loaded.  Beside a single file the index is not read, as by
    transformers."""
    safetensors = _safetensors()
    names = [SINGLE]
    if not (root / SINGLE).exists() and (root / INDEX).exists():
        weight_map = _json(root / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise ConfigError(["weight_map: must name the file of every tensor; fetch the file again"], str(root / INDEX))
        names = sorted(set(weight_map.values()))
    elif not (root / SINGLE).exists():
        other = " (a pickled checkpoint is there: write it again with transformers' save_pretrained)"
        hint = other if any(root.glob("pytorch_model*.bin")) else ""
        raise ConfigError([f"no {SINGLE} and no {INDEX}{hint}; fetch them into this folder"], str(root))
    files: dict[str, Any] = {}
    for name in names:
        path = root / name
        try:
            opened = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
        except FileNotFoundError:
            raise ConfigError([f"no such file, and {INDEX} names it; fetch it again"], str(path)) from None
        except safetensors.SafetensorError as error:
            raise ConfigError([f"cannot be read ({error}); fetch it again"], str(path)) from None
        files |= dict.fromkeys(opened.keys(), opened)
    return files


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ConfigError(["needs the package safetensors: pip install 'scalingladder[hf]'"], "scaling.hf") from None
    return safetensors


def _locate(
    files: Mapping[str, Any], family: Family, c: ModelConfig, shapes: Mapping[str, tuple[int, ...]], root: pathlib.Path
) -> list[tuple[Tensor, int, str]]:
    """Each tensor of the model with its layer and its name in ``files``.

    Raises:
      ConfigError: for missing, unknown and misshapen tensors.
    """
    problems, found = [], []
    for tensor, i, full in _each(family, c):
        name = full if full in files else full.removeprefix(family.prefix)  # a file of the body alone has no prefix
        if name not in files:
            problems.append(f"{full}: in none of the files; fetch the whole checkpoint, of a language model with its head")
            continue
        part = files[name].get_slice(name)
        shape, kind = tuple(part.get_shape()), part.get_dtype()
        want = _shape(tensor, shapes)
        if shape != want:
            problems.append(f"{name}: shape {shape}, where {CONFIG} makes it {want}; they are of different models")
        if kind not in FLOATS:
            problems.append(f"{name}: type {kind}, not one of {', '.join(FLOATS)}; choose a checkpoint without quantization")
        found.append((tensor, i, name))
    tied = {"lm_head.weight"} if c.tied_head else set()
    for name in sorted(files.keys() - {name for _, _, name in found} - tied):
        if not re.fullmatch(family.buffers, name.removeprefix(family.prefix)):
            problems.append(f"{name}: a tensor that {family.model_type} with this {CONFIG} does not have; it would be lost")
    if problems:
        more = [f"... and {len(problems) - 8} more"] if len(problems) > 8 else []
        raise ConfigError(problems[:8] + more, str(root))
    return found


# ------------------------------------------------------------------------------------------- writing


def write(
    folder: str | os.PathLike[str],
    c: ModelConfig,
    params: Any,
    *,
    special_ids: Mapping[str, int] | None = None,
    more_files: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes ``params`` of ``c`` as a checkpoint folder, in float32; it appears whole or not at all.

    Args:
      folder: must not exist, or be empty.
      params: as ``model.init`` gives them, numpy or jax.
      special_ids: ``bos_token_id``, ``eos_token_id`` and ``pad_token_id`` of the vocabulary; null where left out.
      more_files: JSON to write beside, by file name: a tokenizer's.
      shard_bytes: of tensors in one file at most (a larger tensor has a file of its own).

    Raises:
      ConfigError: naming every field that the family cannot hold, or a folder that is in use; nothing is written then.
    """
    root = pathlib.Path(folder)
    _check_free(root, "hf export")
    if root.name in ("", ".."):
        raise ConfigError([f"{root}: has no name of its own; name a folder to make, such as exported"], "hf export")
    family = family_of(c)
    full = dataclasses.replace(c, **family.completed)
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None} | dict(special_ids or {})
    temporary = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        _write_shards(temporary, _their_tensors(family, c, full, params), shard_bytes)
        for name, content in {CONFIG: family.to_json(full) | ids, **(more_files or {})}.items():
            (temporary / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        os.replace(temporary, root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _check_free(root: pathlib.Path, where: str) -> None:
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError([f"{root}: is there already; choose another folder"], where)


def _their_tensors(family: Family, c: ModelConfig, full: ModelConfig, params: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Names and float32 tensors of the file, one at a time; leaves that ``c`` lacks and ``full`` has are zeros."""
    leaves, ours, shapes, factors = _leaves(params), _shapes(c), _shapes(full), folded(c)

    def leaf(path: str, i: int | None) -> np.ndarray:
        if path not in ours:
            return np.zeros(shapes[path] if i is None else shapes[path][1:], np.float32)
        value = np.asarray(leaves[path] if i is None else leaves[path][i], np.float32)
        return value * np.float32(factors.get(path, 1.0))

    for tensor, i, name in _each(family, full):
        yield name, tensor.join([leaf(path, i if tensor.stacked else None) for path in tensor.leaves])


def _write_shards(root: pathlib.Path, tensors: Iterator[tuple[str, np.ndarray]], shard_bytes: int) -> None:
    """One file where they fit, else numbered ones and the index that names the file of each tensor."""
    save = _safetensors().numpy.save_file
    files: list[list[str]] = []
    shard: dict[str, np.ndarray] = {}
    total = 0

    def close() -> None:
        save(shard, root / f"{len(files)}.tmp", metadata={"format": "pt"})  # without it transformers refuses the file
        files.append(list(shard))
        shard.clear()

    for name, value in tensors:
        if shard and sum(x.nbytes for x in shard.values()) + value.nbytes > shard_bytes:
            close()
        shard[name] = value
        total += value.nbytes
    close()
    if len(files) == 1:
        os.replace(root / "0.tmp", root / SINGLE)
        return
    weight_map: dict[str, str] = {}
    for i, names in enumerate(files):
        at = f"model-{i + 1:05d}-of-{len(files):05d}.safetensors"
        os.replace(root / f"{i}.tmp", root / at)
        weight_map |= dict.fromkeys(names, at)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (root / INDEX).write_text(json.dumps(index, indent=2) + "\n")


# ------------------------------------------------------------------------------------------- trees


def _each(family: Family, c: ModelConfig) -> Iterator[tuple[Tensor, int, str]]:
    """Every tensor of a model, with its layer (0 for those of no layer) and its full name."""
    for tensor in family.tensors(c):
        for i in range(c.depth if tensor.stacked else 1):
            yield tensor, i, tensor.name.format(i)


def _leaves(tree: Any) -> dict[str, Any]:
    """Leaves by their path, such as ``blocks/attention/q``."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def tensor_shapes(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that ``write`` makes of a model.

    Raises:
      ConfigError: as ``write``.
    """
    family = family_of(c)
    full = dataclasses.replace(c, **family.completed)
    shapes = _shapes(full)
    return {name: _shape(tensor, shapes) for tensor, _, name in _each(family, full)}


def _shape(tensor: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    return tensor.shape([shapes[path][1:] if tensor.stacked else shapes[path] for path in tensor.leaves])


def _shapes(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in _leaves(model.abstract_params(c)).items()}


def _tree(leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The nested dictionary of leaves by path."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *rooms, name = path.split("/")
        at = tree
        for room in rooms:
            at = at.setdefault(room, {})
        at[name] = leaf
    return tree


# ------------------------------------------------------------------------------------------- run directories


def load_run(run_dir: str | os.PathLike[str], at: int | None = None) -> tuple[TrainConfig, Any, int]:
    """Config, parameters (jax arrays on the CPU; the optimizer's moments stay on disk) and step of a run's checkpoint.

    Args:
      at: the step, the newest by default.

    Raises:
      RunError: when there is no run, no such checkpoint, or it cannot be read.
    """
    root = pathlib.Path(run_dir)
    content = runs.read_json(root / runs.CONFIG)
    if content is None:
        raise runs.RunError(f"{root}: no {runs.CONFIG}; give the folder of a member, or the run_dir of scaling.train")
    c = from_resolved(content["config"])
    folder = root.absolute() / runs.CHECKPOINTS
    steps: list[int] = sorted(orbax.utils.checkpoint_steps(folder)) if folder.is_dir() else []
    if not steps:
        raise runs.RunError(f"{folder}: no checkpoint yet; train the run first")
    at = steps[-1] if at is None else at
    if at not in steps:
        raise runs.RunError(f"{folder}: no checkpoint of step {at}; there are {steps}")
    here = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), model.abstract_params(c.model))
    item = {"params": shapes}
    args = orbax.args.PyTreeRestore(
        item=item, restore_args=orbax.checkpoint_utils.construct_restore_args(item), partial_restore=True
    )
    try:
        with orbax.Checkpointer(orbax.PyTreeCheckpointHandler()) as reader:
            params = reader.restore(folder / str(at) / "state", args=args)["params"]
    except Exception as error:  # Orbax raises what the damaged part raised, of any type
        first = (str(error).strip().splitlines() or [""])[0]
        others = f"; choose another --step of {steps}" if len(steps) > 1 else ""
        raise runs.RunError(f"{folder / str(at)}: cannot be read ({type(error).__name__}: {first}){others}") from None
    return c, params, at


def export(run_dir: str | os.PathLike[str], folder: str | os.PathLike[str], at: int | None = None) -> str:
    """Writes a run's checkpoint as a Hugging Face folder, with its tokenizer where that is bytes; returns what to say.

    Raises:
      RunError, ConfigError: as ``load_run`` and ``write``.
    """
    c, params, at = load_run(run_dir, at)
    ids = {"bos_token_id": tokenizer.BOS, "eos_token_id": tokenizer.EOS, "pad_token_id": tokenizer.PAD}
    with_tokenizer = c.data.vocab == "bytes"
    write(folder, c.model, params, special_ids=ids, more_files=byte_tokenizer_files(c.model.context) if with_tokenizer else {})
    n = flops.n_params(c.model)["total"]
    store = c.data.sources[0][0]  # of a mixture all have one vocabulary
    rest = "tokenizer included" if with_tokenizer else f"tokenizer not included: {store} holds its sentencepiece model"
    return f"{run_dir}, step {at:,}: {n:,} parameters -> {folder} ({rest})"


def import_run(folder: str | os.PathLike[str], run_dir: str | os.PathLike[str], overrides: Mapping[str, Any]) -> str:
    """Makes a run directory of a Hugging Face folder: a checkpoint at step 0, and a config file to train on with.

    Raises:
      ConfigError: as ``read``; for overrides that do not fit; for a run directory that is in use.
    """
    root = pathlib.Path(run_dir)
    _check_free(root, "hf import")
    m, params = read(folder)
    vocab = "bytes" if m.vocab_size == tokenizer.BYTE_VOCAB else str(m.vocab_size)
    fields = {f"model.{name}": value for name, value in dataclasses.asdict(m).items()}
    clash = sorted(name for name in fields.keys() & overrides.keys() if name not in TRAINING)
    problems = [f"{name}: the checkpoint decides it; leave it out" for name in clash]
    if "run_dir" in overrides:
        problems.append(f"run_dir={overrides['run_dir']!r}: the weights are a checkpoint in --to {root}; leave it out")
    if problems:
        raise ConfigError(problems, "hf import")
    fields |= {"data.vocab": vocab} | dict(overrides)
    tree = ml_collections.ConfigDict(default_dict())
    sweep.apply_overrides(tree, fields)
    c = resolve(tree, "hf import")
    state = step.TrainState(jax.numpy.zeros((), jax.numpy.int32), params, optim.optimizer(c.model, c.optim).init(params))
    checkpoints = checkpoint.Checkpoints(root)
    checkpoints.save(0, state, {"track": progress.LossTrack().to_dict(), "ids_hash": "0", "digest": ""})
    checkpoints.wait()
    checkpoints.close()
    (root / "config.py").write_text(CONFIG_FILE.format(folder=folder, root=root, fields=pprint.pformat(fields, width=120)))
    return f"{folder}: {flops.n_params(m)['total']:,} parameters -> {root}; train with --config {root / 'config.py'}"


CONFIG_FILE = '''"""Goes on from the weights of {folder}, which scaling.hf imported into this run directory.

    python -m scaling.train --config {root}/config.py --config.data.store=tokens/mine --config.optim.lr=1e-4

The token store must have the vocabulary of the weights.  They are this folder's checkpoint of step 0: the folder may be moved,
this file must stay in it, and run_dir is where it is.
"""

import pathlib

import ml_collections

from scaling import sweep
from scaling.config import default_dict

FIELDS = {fields}


def get_config(arg=""):
    config = ml_collections.ConfigDict(default_dict())
    sweep.apply_overrides(config, FIELDS | {{"run_dir": str(pathlib.Path(__file__).absolute().parent)}})
    config.lock()
    return config
'''


# ------------------------------------------------------------------------------------------- the command


def main(argv: list[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = cli.Parser(
        prog="python -m scaling.hf", description="Hugging Face checkpoint folders (GPT-2, Llama) from and to run directories."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    out = verbs.add_parser("export", help="write a run's checkpoint as a folder that transformers opens")
    out.add_argument("--run", required=True, type=pathlib.Path, help="a member's folder, or the run_dir of scaling.train")
    out.add_argument("--step", type=int, help="of the checkpoint; the newest by default")
    out.add_argument("--to", required=True, type=pathlib.Path, help="a folder that does not exist yet")
    back = verbs.add_parser(
        "import",
        help="make a run directory of such a folder, to train on",
        epilog="Fields of the training can be set: --config.optim.lr=1e-4 --config.budget='1000 steps'",
    )
    back.add_argument("--from", required=True, type=pathlib.Path, dest="source", help="with config.json and safetensors")
    back.add_argument("--to", required=True, type=pathlib.Path, help="a run directory that does not exist yet")

    def run() -> int:
        rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
        args = parser.parse_args(rest)
        if args.verb == "export" and overrides:
            parser.error("export takes no --config fields: the run has its config")
        jax.config.update("jax_platforms", "cpu")  # an accelerator may be busy training
        said = export(args.run, args.to, args.step) if args.verb == "export" else import_run(args.source, args.to, overrides)
        print(said, flush=True)
        return 0

    return cli.guarded(run)


if __name__ == "__main__":
    sys.exit(main())
