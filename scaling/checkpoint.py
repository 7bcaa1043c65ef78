"""Checkpoints by Orbax: asynchronous, kept at planned marks and at the newest step, restored onto any mesh."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from scaling import runs
from scaling.step import TrainState

SET_ASIDE = "set_aside"  # beside the checkpoints: those that could not be used
KEEP_NEWEST = 2  # so that the one before is there when the newest turns out to be damaged


@contextlib.contextmanager
def _one_failure_told() -> Iterator[None]:
    """Where one read fails, Orbax closes its event loop while others are under way, and each prints a traceback when it ends.

    The failure itself is raised, so these are not shown, not even after it: they may come late.
    """
    before, log = sys.unraisablehook, logging.getLogger("asyncio")
    level = log.level

    def hook(unraisable: Any) -> None:
        late = isinstance(unraisable.exc_value, RuntimeError) and "Event loop is closed" in str(unraisable.exc_value)
        if not late and not inspect.iscoroutine(unraisable.object):
            before(unraisable)

    sys.unraisablehook = hook
    log.setLevel(logging.CRITICAL)  # where tasks that nobody asks any more report as errors
    yield
    sys.unraisablehook = before
    log.setLevel(level)


class Checkpoints:
    """The checkpoints of one run; a folder per step, complete once it has its final name."""

    def __init__(self, run_dir: str | os.PathLike[str], marks: Iterable[int] = (), read_only: bool = False):
        """Opens the checkpoints below ``run_dir``.

        Args:
          run_dir: of the member.
          marks: steps whose checkpoints are never deleted.
          read_only: for a parent's: nothing is created, saved or tidied.
        """
        self.folder = pathlib.Path(run_dir).absolute() / runs.CHECKPOINTS
        if not read_only and jax.process_index() == 0:
            for half in self.folder.glob("*.orbax-checkpoint-tmp*"):  # left by a kill, as large as a whole one
                shutil.rmtree(half, ignore_errors=True)
        keep = policies.AnyPreservationPolicy([policies.LatestN(KEEP_NEWEST), policies.CustomSteps(sorted(marks))])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else keep,
            create=not read_only,
            read_only=read_only,
            save_root_metadata=False,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=("state", "meta"))

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
        """Starts writing; returns once the state may be donated again.  A step that is there already is left alone."""
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=args, force=True)

    def restore(self, step: int, abstract_state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The state of ``step``, split as ``abstract_state`` says, and what was saved beside it.

        Each process reads its part without waiting for others in Orbax: one that cannot would not come there, or come with its
        next try, and they would go on from two steps.

        Raises:
          runs.RunError: when there is no such checkpoint, or it is of parameters of other shapes.
        """
        if step not in self._manager.all_steps():
            raise runs.RunError(f"{self.folder}: no checkpoint of step {step}; there are {sorted(self._manager.all_steps())}")
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), meta=ocp.args.JsonRestore())
        me = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
        handler = ocp.CompositeCheckpointHandler("state", "meta")
        with _one_failure_told(), ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            self._check_shapes(step, abstract_state)
            restored = reader.restore(self.folder / str(step), args=args)
        return TrainState(*restored["state"]), restored["meta"]

    def _check_shapes(self, step: int, abstract_state: TrainState) -> None:
        """Raises RunError for other shapes: Orbax meets them in its threads, and prints a traceback of each."""
        saved = ocp.StandardCheckpointHandler().metadata(self.folder / str(step) / "state")
        found, wanted = _shapes(saved["params"]), _shapes(abstract_state.params)
        if found != wanted:
            names = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
            raise runs.RunError(
                f"{self.folder / str(step)} is of another model ({names[0]} of shape {found.get(names[0])}, this config's is "
                f"{wanted.get(names[0])}; {len(names)} parameters differ); bring its own files back"
            )

    def restore_newest(
        self, abstract_state: TrainState, objection: Callable[[int, Mapping[str, Any]], str | None] = lambda step, meta: None
    ) -> tuple[int, TrainState, dict[str, Any]] | None:
        """The newest step that can be used, its state and what was saved beside it; None where there is no checkpoint.

        Newer ones than that are set aside, so that the run writes them anew when it gets there.

        Args:
          abstract_state: shapes, types and shardings to restore to.
          objection: says from a readable checkpoint's step and what was saved beside it why it cannot be used, or None.

        Raises:
          runs.RunError: when there are checkpoints and none can be used: starting anew would lose what was trained.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        reasons: list[str] = []
        for i, step in enumerate(steps):
            reason: str | None
            try:
                state, meta = self.restore(step, abstract_state)
            except Exception as error:
                reason = self._unreadable(step, error)
            else:
                reason = objection(step, meta)
            reason = self._of_any(step, reason)
            if reason is None:
                self._set_aside(steps[:i])
                return step, state, meta
            print(f"warning: {reason}; trying the checkpoint before it", flush=True)
            reasons.append(str(reason))
        if steps:
            raise runs.RunError(
                f"{self.folder}: none of the checkpoints {steps} can be used ({reasons[0]}); nothing was changed: bring the "
                f"files back, or remove {self.folder.parent} to start this run anew"
            )
        return None

    def _of_any(self, step: int, reason: str | None) -> str | None:
        """``reason``, or that another process has one: a step is used by all or by none.  Every process must call it."""
        if jax.process_count() == 1:
            return reason
        usable = multihost_utils.process_allgather(np.uint8(reason is None))
        others = [i for i, can in enumerate(usable) if not can]
        return reason or (f"{self.folder / str(step)} cannot be used by process {others[0]}" if others else None)

    def restore_mark(self, step: int, abstract_state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """As ``restore``, of a trunk's checkpoint for a branch.

        Raises:
          runs.RunError: when it is missing or cannot be read, with the remedy.
        """
        try:
            return self.restore(step, abstract_state)
        except runs.RunError:
            raise
        except Exception as error:
            raise runs.RunError(
                f"{self._unreadable(step, error)}, and the branch starts from it; bring its files back, or have the trunk "
                f"train that part again: remove {self.folder.parent / runs.DONE} and the checkpoints from {step} on, then run "
                f"the same command"
            ) from None

    def _unreadable(self, step: int, error: Exception) -> str:
        """In words; Orbax raises what the damaged part raised, of any type."""
        if isinstance(error, runs.RunError):
            return str(error)
        first = str(error).strip().partition("\n")[0]
        return f"{self.folder / str(step)} cannot be read ({type(error).__name__}: {first[:200]})"

    def _set_aside(self, steps: Sequence[int]) -> None:
        """Moves steps out of the way, beside the checkpoints; every process of a run must call it."""
        if not steps:
            return
        if jax.process_index() == 0:
            place = self.folder.parent / SET_ASIDE
            place.mkdir(exist_ok=True)
            for step in steps:
                number = sum(1 for _ in place.glob(f"{step}.*"))
                os.rename(self.folder / str(step), place / f"{step}.{number}")
            print(f"warning: moved to {place}: checkpoints {sorted(steps)}; they are trained again", flush=True)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoints set aside")
        self._manager.reload()

    def reached_preemption(self, step: int) -> bool:
        """Whether any process of a multi-process run was asked to stop; every process must call it at every step."""
        return bool(self._manager.reached_preemption(step))

    def wait(self) -> None:
        """Returns when everything that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of arrays, or of what Orbax says of them, by path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(x.shape) for path, x in leaves}
