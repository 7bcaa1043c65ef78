"""Several processes that train one run: joining each other, agreeing before the first step, leaving together."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from scaling import runs
from scaling.config import ConfigError

HEARTBEAT_SECONDS = 30  # after which a host that fell silent is given up; a process that was killed is noticed at once
JOIN_SECONDS = 1800  # hosts of a preempted slice may come back minutes apart
LEAVE_SECONDS = 60
TEXT_BYTES = 2048
NAMES = ("SCALING_COORDINATOR", "SCALING_NUM_PROCESSES", "SCALING_PROCESS_ID")

T = TypeVar("T")


def start(environment: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes where the environment names them: SCALING_*, Slurm or a TPU pod.

    Of Slurm it is the step that counts (srun's tasks): a shell of an allocation for many tasks is one process.

    Raises:
      ConfigError: when SCALING_* is incomplete or cannot be meant.
    """
    join = functools.partial(
        jax.distributed.initialize,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        initialization_timeout=JOIN_SECONDS,
        shutdown_timeout_seconds=LEAVE_SECONDS,
    )
    if any(name in environment for name in NAMES):
        join(*_named(environment))
    elif int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 or "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        join()


def _named(environment: Mapping[str, str]) -> tuple[str, int, int]:
    """Address, number of processes and the own index, from SCALING_*."""
    coordinator, count, index = (environment.get(name, "") for name in NAMES)
    problems = []
    if not re.fullmatch(r"\S+:\d+", coordinator):
        problems.append(f"SCALING_COORDINATOR={coordinator!r}: must be host:port of process 0, the same for all processes")
    if not (count.isdecimal() and int(count) > 0):
        problems.append(f"SCALING_NUM_PROCESSES={count!r}: must be the number of processes")
    elif not (index.isdecimal() and int(index) < int(count)):
        problems.append(f"SCALING_PROCESS_ID={index!r}: must be from 0 to {int(count) - 1}, another one for each process")
    if problems:
        raise ConfigError(problems, "environment")
    return coordinator, int(count), int(index)


def agreed(make: Callable[[], T], identity: Callable[[T], str]) -> T:
    """``make()`` of this process, once every process has made the same; a problem of one is raised on all of them.

    Without this, processes that could start would wait for one that told its problem and left.

    Args:
      make: may fail on one process alone, such as by a file that only one host has.
      identity: of what was made; must be equal everywhere.

    Raises:
      RunError: on the processes that had no problem themselves, or when what they made differs.
    """
    if jax.process_count() == 1:
        return make()
    problem: Exception | None = None
    try:
        made = make()
        said = f"+{identity(made)}"
    except Exception as error:
        problem, said = error, f"-{error}"
    texts = _exchanged(said)
    if all(text == said for text in texts) and problem is None:
        return made
    leave()
    if problem is not None:
        raise problem
    index = next(i for i, text in enumerate(texts) if text != said)
    if texts[index].startswith("-"):
        raise runs.RunError(f"process {index} cannot start: {texts[index][1:]}")
    here = f"process {jax.process_index()} ({said[1:]})"
    raise runs.RunError(
        f"process {index} was started to train another run ({texts[index][1:]}) than {here}; give all the same command"
    )


def _exchanged(text: str) -> list[str]:
    """Every process's text, by process."""
    mine = text.encode()[:TEXT_BYTES].ljust(TEXT_BYTES, b"\0")
    every = multihost_utils.process_allgather(np.frombuffer(mine, np.uint8))
    return [bytes(np.asarray(row)).rstrip(b"\0").decode(errors="replace") for row in every]


def leave() -> None:
    """Waits until every process has come here, because the first one's end would end the others in mid-work.

    For ends that all processes reach together; after an error nobody is waited for, since they may be waiting for this one.
    """
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
