"""Members as the trainer leaves them, of random parameters: where a test needs a run and nothing of its training."""

import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import tiny

from scaling import checkpoint, config, optim, plan, progress, runs, step


def member(root: pathlib.Path, c: config.TrainConfig, steps: Sequence[int]) -> pathlib.Path:
    """A finished run with a checkpoint at each of ``steps``, all of ``tiny.wide_params``."""
    state = step.TrainState(jnp.zeros((), jnp.int32), tiny.wide_params(c.model), {})
    state = state._replace(opt_state=optim.optimizer(c.model, c.optim).init(state.params))
    checkpoints = checkpoint.Checkpoints(root, marks=steps[:-1])
    for at in steps:
        checkpoints.save(at, state, {"track": progress.LossTrack().to_dict()})
    checkpoints.wait()
    checkpoints.close()
    runs.write_json(root / runs.CONFIG, {"digest": "", "data_fingerprint": "", "config": config.to_dict(c)})
    runs.write_json(root / runs.PLAN, plan.make_plan(c).to_dict())
    runs.write_json(root / runs.DONE, {"status": "finished", "cause": None})
    return root
