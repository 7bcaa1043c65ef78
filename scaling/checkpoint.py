"""Checkpoints by Orbax: asynchronous, kept at planned marks and at the newest step, restored onto any mesh."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from scaling import runs
from scaling.step import TrainState

KEEP_NEWEST = 2  # so that the one before is there when the newest turns out to be damaged


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

        Raises:
          runs.RunError: when there is no such checkpoint.
        """
        if step not in self._manager.all_steps():
            raise runs.RunError(f"{self.folder}: no checkpoint of step {step}; there are {sorted(self._manager.all_steps())}")
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=args)
        return TrainState(*restored["state"]), restored["meta"]

    def restore_newest(self, abstract_state: TrainState) -> tuple[int, TrainState, dict[str, Any]] | None:
        """The newest step that can be read, its state and what was saved beside it; None where there is no checkpoint.

        Raises:
          runs.RunError: when there are checkpoints and none can be read: starting anew would lose what was trained.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return step, *self.restore(step, abstract_state)
            except Exception as error:  # Orbax raises what the damaged part raised, of any type
                first = str(error).strip().splitlines()[:1]
                print(f"warning: {self.folder / str(step)} cannot be read ({type(error).__name__}: {first})", flush=True)
        if steps:
            raise runs.RunError(f"{self.folder}: none of the checkpoints {steps} can be read; remove the run to start anew")
        return None

    def reached_preemption(self, step: int) -> bool:
        """Whether any process of a multi-process run was asked to stop; every process must call it at every step."""
        return bool(self._manager.reached_preemption(step))

    def wait(self) -> None:
        """Returns when everything that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()
