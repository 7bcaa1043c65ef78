"""Trains one run: `python -m scaling.train --config configs/default.py --config.model.depth=6 --config.run_dir=runs/one`.

Reads a config (or a member's spec.json), goes on where the run directory stands, and ends with exit status
0  done.json is written: finished, or diverged with its cause;
75 asked to stop (SIGTERM, Ctrl-C) and saved: run the same command again;
2  a config or a directory that cannot be used, nothing was trained;
1  an error, with its traceback;
130 Ctrl-C before the first step: nothing was lost.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import pathlib
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from scaling import checkpoint, cli, config, data, flops, optim, partition, processes, runs, step
from scaling import job as jobs
from scaling.evals.items import TaskError
from scaling.job import Job
from scaling.progress import Chrono, LossTrack
from scaling.sources import SourceError
from scaling.store import StoreError
from scaling.tokenizer import VocabularyError

if TYPE_CHECKING:
    from scaling.evals.cells import Ask

LOG_ROWS = 400  # training rows over a whole run, evenly spaced by step, so that a resumed run writes the same ones
ATTEMPT_SECONDS = 5.0  # how often the attempt's record is renewed
PRINT_SECONDS = 10.0
BROADCAST_STEPS = 20


def set_up_jax(machine: config.MachineConfig) -> None:
    """The persistent compilation cache, and every program in it, however quickly it compiled."""
    if machine.compile_cache:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(machine.compile_cache).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def peak_flops() -> dict[str, Any]:
    """The devices' peak for MFU: from the table, or on a CPU the float32 matmul rate measured here and now (0.1 s)."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return {"peak_flops": flops.device_peak(device.device_kind), "peak_source": "data sheet, bf16, per device"}
    n = 768
    x = jnp.ones((n, n))
    multiply = jax.jit(jnp.matmul)
    multiply(x, x).block_until_ready()
    seconds = []
    for _ in range(5):
        before = time.perf_counter()
        multiply(x, x).block_until_ready()
        seconds.append(time.perf_counter() - before)
    return {"peak_flops": 2 * n**3 / min(seconds), "peak_source": f"measured float32 matmul of {n} x {n}"}


class StopRequest:
    """Whether this process was asked to stop; SIGTERM and SIGINT set it, the loop acts on it between steps.

    Of several processes JAX's own notifier hears SIGTERM; a Python handler would replace it.
    """

    def __init__(self) -> None:
        self.asked = False
        if jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        signal.signal(number, signal.SIG_DFL)  # asked once more, it ends at once


class _Pending(NamedTuple):
    """A step that was dispatched and not read yet: its number, metrics, learning rate and windows."""

    at: int
    metrics: step.Metrics
    lr: np.float32
    ids: np.ndarray


class Run:
    """The state of one attempt: what the loop reads and writes."""

    def __init__(self, job: Job, programs: step.Programs, device: dict[str, Any], asks: tuple[Ask, ...], chrono: Chrono):
        self.job, self.chrono, self.programs, self.asks = job, chrono, programs, asks
        self.lead = jax.process_index() == 0  # the one process of a run that writes its small files
        self.peak = device["peak_flops"] and device["peak_flops"] * programs.mesh.size
        context = job.config.model.context
        with chrono("compile"):
            self.train = step.compile_train(programs, job.plan, context)
        self.evaluate: Any = None  # compiled when it is first needed: before the first step it would only delay that
        self.checkpoints = checkpoint.Checkpoints(job.run_dir, marks=(*job.plan.marks, job.plan.steps))
        self.stream = data.open_stream(job.data, context, job.config.seed, job.plan.tokens, job.config.data.epochs)
        self.validation = data.Validation.open(job.data, context, job.config.data.val_windows)
        self.state, self.track, self.ids_hash, self.at = self._first_state()
        self.attempt, self._attempt_path = self._claim()
        self._row_at = (self.at, 0.0)  # step and training seconds at the last row
        self._saved_at = self._recorded_at = time.monotonic()
        self._printed_at = 0.0
        self._rows = len(runs.Member(job.run_dir).metrics()) if self.lead else 0
        self._doing: str | None = None  # 'train' once steps follow each other: then the launcher's watchdog counts
        self.stop = StopRequest()

    def _first_state(self) -> tuple[step.TrainState, LossTrack, int, int]:
        """From the own newest checkpoint, else the trunk's at the fork, else fresh."""
        job, abstract = self.job, self.programs.abstract_state
        with self.chrono("restore"):
            own = self.checkpoints.restore_newest(abstract, functools.partial(jobs.rows_lost, job.run_dir))
            if own is not None:
                at, state, meta = own
                return state, LossTrack(**meta["track"]), int(meta["ids_hash"]), at
            if job.parent_dir is not None:
                at = job.plan.fork_steps
                state, meta = checkpoint.Checkpoints(job.parent_dir, read_only=True).restore_mark(at, abstract)
                return state, LossTrack(**meta["track"]).forked(), int(meta["ids_hash"]), at
        with self.chrono("compile"):
            return self.programs.init(step.named_key(job.config.seed, "init")), LossTrack(), 0, 0

    def _claim(self) -> tuple[dict[str, Any], pathlib.Path | None]:
        content = {"started_at": time.time(), "host": socket.gethostname(), "pid": os.getpid(), "from_step": self.at}
        if not self.lead:
            return content, None
        jobs.drop_rows_after(self.job.run_dir, self.at)
        return content, runs.claim_attempt(self.job.run_dir, content)

    # -- rows and records

    def record_attempt(self, exit_kind: str | None = None, cause: str | None = None) -> None:
        """Renews attempts/NNN.json: steps, seconds by kind, and at the end how it ended."""
        self._recorded_at = time.monotonic()
        if self._attempt_path is not None:
            content = {"to_step": self.at, "seconds": self.chrono.seconds(), "exit": exit_kind, "cause": cause}
            runs.write_json(self._attempt_path, self.attempt | content | {"doing": self._doing})

    @contextlib.contextmanager
    def _between_steps(self, kind: str) -> Iterator[None]:
        """A part that may take any time; the attempt's record says so, since the watchdog goes by it."""
        before, self._doing = self._doing, kind
        self.record_attempt()
        with self.chrono(kind):
            yield
        self._doing = before
        self.record_attempt()

    def _append(self, row: dict[str, Any]) -> None:
        if self.lead:
            runs.append_jsonl(self.job.run_dir / runs.METRICS, row)
            self._rows += 1

    def _position(self, at: int) -> dict[str, Any]:
        plan = self.job.plan
        tokens = at * plan.batch_tokens
        return {"step": at, "tokens": tokens, "flops": tokens * plan.flops_per_token[flops.DEFAULT_CONVENTION]}

    def train_row(self, at: int, grad_norm: float, lr: float) -> None:
        """Appends a training row for the steps since the last one; speed counts their training seconds alone."""
        plan, busy = self.job.plan, self.chrono.seconds().get("train", 0.0)
        since, busy_then = self._row_at
        self._row_at = (at, busy)
        speed = (at - since) * plan.batch_tokens / max(1e-9, busy - busy_then)
        achieved = speed * plan.flops_per_token[flops.DEFAULT_CONVENTION]
        mfu = achieved / self.peak if self.peak else None
        row = {"kind": "train", **self._position(at), "loss": self.track.take_mean(), "lr": lr, "grad_norm": grad_norm}
        row |= {"tokens_per_second": round(speed, 1), "flops_per_second": round(achieved), "mfu": mfu and round(mfu, 4)}
        row |= {"epoch": round(self.stream.epoch(at * self.job.rows), 4), "ids_hash": f"{self.ids_hash:012x}"}
        if self.job.data.mixed:
            row["sources"] = self.job.data.seen(at * self.job.rows, self.job.config.model.context)
        self._append(row)
        if time.monotonic() - self._printed_at > PRINT_SECONDS or at == plan.steps:
            self._printed_at = time.monotonic()
            of_peak = f"  MFU {mfu:.1%}" if mfu else ""
            loss = "-" if row["loss"] is None else f"{row['loss']:.4f}"
            print(f"step {at:,}/{plan.steps:,}  loss {loss}  lr {lr:.2e}  {speed:,.0f} tokens/s{of_peak}", flush=True)

    def validate(self) -> dict[str, Any]:
        """Loss over the fixed validation windows: nats per token with standard error, and bits per byte."""
        if self.evaluate is None:
            with self._between_steps("compile"):
                self.evaluate = step.compile_evaluate(self.programs, self.job.plan, self.job.config.model.context)
        with self._between_steps("eval"):
            nats = np.concatenate(list(self._window_nats()))[: len(self.validation.windows)]
        row = {"kind": "val", **self._position(self.at), **self.validation.losses(nats)}
        self._append(row)
        print(f"step {self.at:,}  validation loss {row['loss']:.4f} nats/token, {row['bpb']:.4f} bits/byte", flush=True)
        for name, source in row.get("sources", {}).items():
            print(f"  {name}: {source['loss']:.4f} nats/token, {source['bpb']:.4f} bits/byte", flush=True)
        return row

    def probe(self) -> None:
        """Asks the tasks of ``config.probe`` and records the answers; a model that cannot answer goes on training."""
        if not self.job.config.probe.suite:
            return
        params = self.state.params
        if jax.process_count() > 1:  # every process gives its part, the first one asks
            params = multihost_utils.process_allgather(params, tiled=True)
        if not self.lead:
            return
        from scaling.evals import asking  # SciPy comes with it, which a run that asks nothing does not need

        with self._between_steps("eval"):
            position = asking.Position(**self._position(self.at))
            tokenizer = self.job.data.stores[0].tokenizer
            try:
                for ask in self.asks:
                    rows = asking.score_now(self.job.config.model, params, tokenizer, ask, position, self.job.run_dir)
                    print("\n".join(f"step {self.at:,}  {line}" for line in asking.in_words(rows)), flush=True)
            except TaskError as error:
                print(f"step {self.at:,}  not asked: {error}", flush=True)

    def _window_nats(self) -> Iterator[np.ndarray]:
        """Nats per window, a batch at a time; the last batch is filled up with its first window."""
        rows, windows = self.job.rows, self.validation.windows
        for i in range(0, len(windows), rows):
            part = windows[i : i + rows]
            full = np.concatenate([part, np.repeat(part[:1], rows - len(part), axis=0)])
            index, count = partition.process_block(self.programs.mesh)
            mine = np.array_split(full, count)[index]
            yield np.asarray(self.evaluate(self.state.params, self._on_mesh(mine)))

    def _on_mesh(self, windows: np.ndarray) -> Any:
        """This process's rows as part of the global batch; a single process leaves that to the compiled program."""
        if jax.process_count() == 1:
            return windows
        sharding = partition.batch_sharding(self.programs.mesh)
        return jax.make_array_from_process_local_data(sharding, windows, (self.job.rows, windows.shape[1]))

    def save(self) -> None:
        """Starts an asynchronous checkpoint of the state as it is."""
        with self._between_steps("checkpoint"):
            runs.sync(self.job.run_dir / runs.METRICS)
            meta = {"track": self.track.to_dict(), "ids_hash": str(self.ids_hash), "digest": self.job.digest}
            self.checkpoints.save(self.at, self.state, meta | {"rows": self._rows})
        self._saved_at = time.monotonic()

    # -- the loop

    def loop(self) -> str | None:
        """Trains from where the state is to the end or a request to stop; returns the cause of a divergence, if any.

        The host runs one step ahead of what it reads: step s is dispatched before the loss of s - 1 is fetched.
        """
        job, plan = self.job, self.job.plan
        batches = data.loader(self.stream, job.rows, self.at, *partition.process_block(self.programs.mesh))
        log_every = max(1, -(-plan.steps // LOG_ROWS))
        eval_steps = {
            plan.fork_steps + round(i * (plan.steps - plan.fork_steps) / job.config.evals) for i in range(1, job.config.evals)
        }
        pending: _Pending | None = None
        self._doing = "train"
        self.record_attempt()
        while self.at < plan.steps:
            with self.chrono("data"):
                windows = self._on_mesh(next(batches))
            lr = optim.learning_rate(job.config.optim, plan, self.at)
            with self.chrono("train"):
                self.state, metrics = self.train(self.state, windows, lr)
            cause = self._read(pending, log_every)
            if cause:
                return cause
            ids = self.stream.window_ids(self.at * job.rows, (self.at + 1) * job.rows)
            self.ids_hash = data.ids_hash(self.ids_hash, ids)
            self.at += 1
            pending = _Pending(self.at, metrics, lr, ids)
            stop = self._asked_to_stop()
            evaluate = self.at in eval_steps
            save = stop or self.at in plan.marks or self.at == plan.steps or self._save_is_due()
            if evaluate or save:
                cause, pending = self._read(pending, log_every), None
                if cause:
                    return cause
                if evaluate:
                    self.validate()
                if job.config.probe.marks and self.at in plan.marks and self.at < plan.steps:
                    self.probe()
                if save:
                    self.save()
            if stop:
                break
        return None

    def _read(self, pending: _Pending | None, log_every: int) -> str | None:
        """Fetches a dispatched step's metrics, writes a row when one is due; returns the cause of a divergence."""
        if pending is None:
            return None
        at, metrics = pending.at, pending.metrics
        with self.chrono("train"):
            loss, grad_norm = float(metrics.loss), float(metrics.grad_norm)
        self.attempt.setdefault("first_step_after", round(self.chrono.total(), 3))
        cause = self.track.add(at, loss, grad_norm, self._told(pending))
        if cause is None and (at % log_every == 0 or at == self.job.plan.steps):
            self.train_row(at, grad_norm, float(pending.lr))
        if time.monotonic() - self._recorded_at > ATTEMPT_SECONDS:
            self.record_attempt()
        return cause

    def _told(self, pending: _Pending) -> list[float] | None:
        """Losses of the windows of the one source that is reported, where there is one."""
        source, loss_B = self.job.data.loss_of, pending.metrics.loss_B
        if loss_B is None or source is None or not isinstance(self.stream, data.Mixture):
            return None
        return np.asarray(loss_B)[self.stream.of_source(pending.ids, source)].tolist()

    def _asked_to_stop(self) -> bool:
        return self.checkpoints.reached_preemption(self.at) if jax.process_count() > 1 else self.stop.asked

    def _save_is_due(self) -> bool:
        """By time; of several processes the first decides, now and then, since asking costs a broadcast."""
        due = time.monotonic() - self._saved_at > 60 * self.job.config.machine.checkpoint_minutes
        if jax.process_count() == 1:
            return due
        return self.at % BROADCAST_STEPS == 0 and bool(multihost_utils.broadcast_one_to_all(np.bool_(due)))

    def finish(self, cause: str | None) -> int:
        """Validates, waits for the last checkpoint and writes done.json (or, when asked to stop, only the attempt)."""
        plan = self.job.plan
        stopped = cause is None and self.at < plan.steps
        row = None if cause or stopped else self.validate()
        if row is not None and (plan.annealed or self.job.config.probe.marks):
            self.probe()
        with self._between_steps("checkpoint"):
            self.checkpoints.wait()
            self.checkpoints.close()
        self.record_attempt("preempted" if stopped else "done", cause)
        if stopped:
            print(f"saved at step {self.at:,} of {plan.steps:,}; run the same command to go on", flush=True)
            return runs.PREEMPTED
        if self.lead:
            jobs.write_done(self.job, self.at, cause, row)
        for name, seen in self.job.sources(self.at, None).get("sources", {}).items():
            print(f"  {name}: {seen['tokens']:,} tokens, {seen['epochs']:.3g} epochs", flush=True)
        print(f"diverged: {cause}" if cause else f"finished: {plan.tokens:,} tokens, done.json written", flush=True)
        return 0


class Opened(NamedTuple):
    """A run that may be trained: its directory is held and its config fits the devices."""

    job: Job
    programs: step.Programs
    device: dict[str, Any]
    asks: tuple[Ask, ...]  # of the tasks in config.probe, for the first process


def open_run(job: Job, held: contextlib.ExitStack) -> Opened | int:
    """Locks the run directory (until ``held`` ends) and checks everything that can be checked before it is compiled.

    Returns:
      the run, or an exit status where there is nothing to train.

    Raises:
      ConfigError, RunError, TaskError: for what cannot be used.
    """
    lead = jax.process_index() == 0
    if lead:
        held.enter_context(jobs.exclusive(job.run_dir))
    if runs.read_json(job.run_dir / runs.DONE) is not None:
        there = runs.read_json(job.run_dir / runs.CONFIG)
        if there is not None and there["digest"] == job.digest:
            print(f"{job.run_dir}: already done, nothing to train", flush=True)
            return 0
    if jobs.is_superseded(job):
        print(f"{job.run_dir}: was given another config while this process started; nothing was trained", flush=True)
        return runs.PREEMPTED
    set_up_jax(job.config.machine)
    device = peak_flops()
    programs = step.make_programs(job.config, partition.make_mesh(job.config.machine, job.rows))
    partition.process_block(programs.mesh)
    asks = _asks(job.config.probe) if lead else ()
    if lead:
        jobs.open_run_dir(job, device)
        print(job.summary(), flush=True)
    return Opened(job, programs, device, asks)


def _asks(probe: config.ProbeConfig) -> tuple[Ask, ...]:
    if not probe.suite:
        return ()
    from scaling.evals import cells

    return cells.of_config(probe)


def train(make_job: Callable[[], Job], chrono: Chrono) -> int:
    """Trains a run to its end or until asked to stop; returns the exit status.

    Raises:
      ConfigError, RunError: for what cannot be used, before anything is trained; of several processes on all of them.
    """
    with contextlib.ExitStack() as held:
        opened = processes.agreed(lambda: open_run(make_job(), held), lambda o: str(o) if isinstance(o, int) else o.job.digest)
        if isinstance(opened, int):
            return opened
        run = Run(*opened, chrono)
        try:
            return run.finish(run.loop())
        except Exception as error:
            with contextlib.suppress(OSError):  # the disk may be what failed
                run.record_attempt("error", f"{type(error).__name__}: {error}")
            if cli.remedy(error):
                raise
            traceback.print_exc()
            return 1


def main(argv: list[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    chrono = Chrono()
    parser = cli.Parser(
        prog="python -m scaling.train",
        description="Trains one run; the same command goes on where it was.",
        epilog="Any field can be set: --config.model.depth=6 --config.optim.lr=4e-3 --config.budget='20 tokens/param'",
    )
    parser.add_argument(
        "--config", help="a config file: as given, in ./configs, or a packaged one, with :arg", metavar="FILE[:ARG]"
    )
    parser.add_argument("--spec", type=pathlib.Path, help="a member's spec.json, instead of --config (what the launcher uses)")

    def run() -> int:
        rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
        args = parser.parse_args(rest)
        if (args.config is None) == (args.spec is None):
            parser.error("give --config FILE, such as --config default.py (or a member's --spec)")

        def make_job() -> Job:
            return jobs.job_from_spec(args.spec) if args.spec else jobs.job_from_config(args.config, overrides)

        processes.start()
        with config.in_file(str(args.spec or args.config)):
            status = train(make_job, chrono)
        if status in (0, runs.PREEMPTED):
            processes.leave()
        return status

    return cli.guarded(run, StoreError, SourceError, VocabularyError, data.StreamError, TaskError)


if __name__ == "__main__":
    if hasattr(signal, "SIGUSR1"):  # the launcher's watchdog asks a hanging worker where it stands
        faulthandler.register(signal.SIGUSR1)
    try:
        status = main()
    except KeyboardInterrupt:
        print("stopped before the first step; nothing was lost", file=sys.stderr)
        status = 130
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
