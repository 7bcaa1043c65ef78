"""One run as a job: its config, plan, data and place, and what its run directory holds before and after training."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import platform
import resource
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import jax

from scaling import config, corpus, data, locks, markov, runs, sizes, sweep
from scaling.mixture import Dataset
from scaling.plan import Plan, make_plan
from scaling.store import StoreError
from scaling.units import format_count


@dataclasses.dataclass(frozen=True)
class Job:
    """One run to be trained: what, where, and from which state."""

    config: config.TrainConfig
    run_dir: pathlib.Path
    plan: Plan
    data: Dataset
    digest: str
    parent_dir: pathlib.Path | None = None  # a branch starts from this trunk's checkpoint at plan.fork_steps
    cluster: str | None = None

    @property
    def rows(self) -> int:
        """Windows per step."""
        return self.plan.batch_windows

    def sources(self, step: int, val: dict[str, Any] | None) -> dict[str, Any]:
        """What done.json tells of each source of a mixture: tokens and epochs seen, and its own validation loss."""
        if not self.data.mixed:
            return {}
        seen = self.data.seen(step * self.rows, self.config.model.context)
        return {"sources": {name: seen[name] | (val["sources"][name] if val else {}) for name in seen}}

    def summary(self) -> str:
        """The run in words: shape and the rule that it comes from, N, D, C, schedule, warnings."""
        m, p = self.config.model, self.plan
        n = ", ".join(f"{format_count(v)} {k.replace('_', '-')}" for k, v in p.n_params.items())
        decay = f", cooldown {p.cooldown_steps:,}" if p.cooldown_steps else ""
        lines = [
            f"model: depth {m.depth}, D {m.width}, H {m.heads}, G {m.kv_heads}, K {m.head_size}, F {m.ff}, V {m.vocab_size}, "
            f"T {m.context}  ({sizes.FORMULA})",
            f"N: {n}; D: {p.tokens:,} tokens ({p.tokens_per_param:.3g} per non-embedding parameter); C: {p.flops():.3g} FLOPs",
            f"{p.steps:,} steps of {p.batch_tokens:,} tokens; {self.config.optim.schedule}, warm-up {p.warmup_steps:,}{decay} "
            f"steps; learning rate {p.lr:g} at width {m.base_width} ({m.parameterization})",
        ]
        return "\n".join(lines + [f"warning: {w}" for w in p.warnings])


def job_from_config(name: str, overrides: dict[str, Any]) -> Job:
    """A single run from a config file."""
    tree, _ = sweep.load_config(name, overrides)
    resolved = config.resolve(tree, name)
    dataset = _load(resolved.data)
    plan = make_plan(resolved, stream_tokens=dataset.stream_tokens(resolved.model.context))
    return Job(resolved, pathlib.Path(resolved.run_dir), plan, dataset, config.digest(resolved, dataset.fingerprint))


def job_from_spec(path: pathlib.Path) -> Job:
    """A member of a sweep from the spec.json that the launcher wrote.

    Raises:
      RunError: when there is no spec, or the trunk of a branch has not started.
    """
    spec = runs.read_json(path)
    if spec is None:
        raise runs.RunError(f"{path}: no such file; give the spec.json of a member that scaling.launch wrote")
    run_dir = path.parent
    resolved = dataclasses.replace(config.from_resolved(spec["config"]), run_dir=str(run_dir))
    dataset = _load(resolved.data)
    trunk, parent_dir, fork_at = None, None, None
    if spec["parent"] is not None:
        parent_dir = pathlib.Path(os.path.normpath(run_dir / spec["parent_dir"]))
        content = runs.read_json(parent_dir / runs.PLAN)
        if content is None:
            raise runs.RunError(f"{parent_dir / runs.PLAN}: the trunk {spec['parent']} has not started; train it first")
        if not (run_dir / runs.ATTEMPTS).exists():  # one that has begun goes on from its own checkpoint
            _check_mark(parent_dir / runs.CHECKPOINTS, spec["fork_steps"])
        trunk, fork_at = Plan.from_dict(content), f"{spec['fork_steps']} steps"
    epoch = dataset.stream_tokens(resolved.model.context)
    plan = make_plan(resolved, stream_tokens=epoch, trunk=trunk, fork_at=fork_at)
    return Job(resolved, run_dir, plan, dataset, spec["digest"], parent_dir, spec["cluster"])


def _load(wanted: config.DataConfig) -> Dataset:
    """The stores of a run, with their tokenizers, so that one that cannot be used is told before anything is written."""
    dataset = corpus.load_data(wanted)
    for store in dataset.stores:
        _ = store.tokenizer
    return dataset


def _check_mark(checkpoints: pathlib.Path, at: int) -> None:
    """Raises RunError unless the trunk's checkpoint that a branch starts from is there; whether it can be read, shows later."""
    if not (checkpoints / str(at)).is_dir():
        there = sorted(int(p.name) for p in checkpoints.glob("[0-9]*") if p.name.isdigit())
        raise runs.RunError(
            f"{checkpoints}: no checkpoint of step {at}, which the branch starts from; there are {there}; train the trunk to "
            f"it first, or, where it is done, bring the files back, or remove {checkpoints.parent} to train it anew"
        )


@contextlib.contextmanager
def exclusive(run_dir: pathlib.Path) -> Iterator[None]:
    """Holds the run directory's lock, so that no run is ever trained twice at once.

    Raises:
      RunError: when another process holds it, or the folder cannot be made because a file is in its place.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.held(run_dir / runs.LOCK, locks.exclusively))
        except BlockingIOError:
            raise runs.RunError(f"{run_dir}: another process trains this run; wait for it or stop it") from None
        except (FileExistsError, NotADirectoryError):
            raise runs.RunError(
                f"{run_dir}: a file is in the place of this folder or of one above it; choose another run_dir"
            ) from None
        yield


def is_superseded(job: Job) -> bool:
    """Whether a launcher has given the member another config since its spec was read; ask while holding the run directory."""
    spec = runs.read_json(job.run_dir / runs.SPEC) if job.cluster is not None else None
    return spec is not None and spec["digest"] != job.digest


def open_run_dir(job: Job, device: dict[str, Any]) -> None:
    """Writes config.json, plan.json and env.json at the first start; later compares.

    Raises:
      RunError: when the directory belongs to a run with another config or other data, naming the differences.
    """
    path = job.run_dir / runs.CONFIG
    there = runs.read_json(path) if (job.run_dir / runs.ATTEMPTS).exists() else None  # before that nothing was trained
    if there is not None and there["digest"] != job.digest:
        old = config.identity(config.from_resolved(there["config"]))
        changes = config.difference(old, config.identity(job.config)) or [
            f"data: {there['data_fingerprint']} -> {job.data.fingerprint}"
        ]
        raise runs.RunError(
            f"{path}: another run lives here ({'; '.join(changes)}); choose another run_dir, or undo the change"
        )
    if there is None:
        more = {"cluster": job.cluster or job.run_dir.name, **_ideal(job)}
        runs.write_json(job.run_dir / runs.PLAN, job.plan.to_dict() | more)
        runs.write_json(job.run_dir / runs.ENV, environment() | device)
        content = {"digest": job.digest, "data_fingerprint": job.data.fingerprint, "config": config.to_dict(job.config)}
        runs.write_json(path, content)


def _ideal(job: Job) -> dict[str, float | None]:
    """What the best possible model loses, where the source is known: expected, and on the run's own validation windows, whose
    sampling error every model's validation loss shares; nats per token."""
    context = job.config.model.context
    expected, on_windows = job.data.ideal_loss(context), None
    if expected is not None:
        windows = data.validation(job.data.stores[0], context, job.config.data.val_windows)
        with contextlib.suppress(StoreError):  # drawn by a NumPy whose random numbers were others
            on_windows = markov.loss_of_the_best(job.data.stores[0], windows)
    return {"ideal_loss": expected, "ideal_val_loss": on_windows}


def environment() -> dict[str, Any]:
    """Versions, host and devices."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {p: metadata.version(p) for p in packages},
        "devices": [d.device_kind for d in jax.devices()],
        "processes": jax.process_count(),
    }


def drop_rows_after(run_dir: pathlib.Path, step_number: int) -> None:
    """Takes the rows that a killed attempt wrote beyond its last checkpoint out of metrics.jsonl."""
    path = run_dir / runs.METRICS
    rows = list(runs.read_jsonl(path))
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    for row in rows:
        if row["step"] <= step_number:
            runs.append_jsonl(temporary, row)
    if temporary.exists():
        runs.sync(temporary)  # else a power cut may leave nothing in the place of the rows that were there
        os.replace(temporary, path)
    else:
        path.unlink(missing_ok=True)


def rows_lost(run_dir: pathlib.Path, step_number: int, meta: Mapping[str, Any]) -> str | None:
    """Whether metrics.jsonl lacks rows that were there when the checkpoint of ``step_number`` was saved; then in words."""
    before = meta.get("rows") or 0  # not counted by the first version
    left = sum(row["step"] <= step_number for row in runs.Member(run_dir).metrics())
    return f"{run_dir / runs.METRICS}: {left} of {before} rows up to step {step_number} are left" if left < before else None


def write_done(job: Job, at: int, cause: str | None, val: dict[str, Any] | None) -> None:
    """The member's last file: its presence means finished."""
    member = runs.Member(job.run_dir)
    train_rows = [row for row in member.metrics() if row["kind"] == "train"]
    tokens = at * job.plan.batch_tokens
    content = {
        "digest": job.digest,
        "status": "diverged" if cause else "finished",
        "cause": cause,
        "steps": at,
        "tokens": tokens,
        "flops": {c: tokens * per_token for c, per_token in job.plan.flops_per_token.items()},
        "train_loss": train_rows[-1]["loss"] if train_rows else None,
        "val_loss": val and val["loss"],
        "val_loss_stderr": val and val["loss_stderr"],
        "val_bpb": val and val["bpb"],
        **job.sources(at, val),
        "annealed": job.plan.annealed,
        "seconds": {kind: round(s, 3) for kind, s in member.seconds().items()},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "finished_at": time.time(),
    }
    runs.write_json(job.run_dir / runs.DONE, content)
