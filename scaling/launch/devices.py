"""What this machine can train on: its cores, its GPUs or its TPU chips, found without jax."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence

from scaling.launch.folder import LaunchError

CPU_QUOTA = pathlib.Path("/sys/fs/cgroup/cpu.max")  # a container's: microseconds of CPU and of the period that they are for
PINNING = hasattr(os, "sched_setaffinity")  # Linux has it, macOS has not
# The variable by which a process sees some devices alone.
VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES", "tpu": "TPU_VISIBLE_CHIPS"}
UNITS = {"cpu": "core", "cuda": "GPU", "rocm": "GPU", "tpu": "TPU chip"}
# XLA takes this share of a device's memory at the start; its default of 0.75 leaves a quarter to others, and a member has none.
GPU_MEMORY_SHARE = "0.9"


@dataclasses.dataclass(frozen=True)
class Slot:
    """A core, a GPU or a chip: its number (a GPU's may be a UUID), and the device's name where the system tells it."""

    id: str
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Pool:
    """What members are given here: slots of one kind, in the order in which they are given out."""

    kind: str  # JAX's name of the platform: cpu, cuda, rocm, tpu
    slots: tuple[Slot, ...]
    note: str = ""  # why not another kind

    @property
    def unit(self) -> str:
        return UNITS.get(self.kind, "device")

    def first(self, count: int | None) -> Pool:
        """At most ``count`` of them."""
        return dataclasses.replace(self, slots=self.slots[:count])

    def words(self) -> str:
        """``'2 cores'``, ``'4 GPUs (NVIDIA H100 80GB HBM3)'``."""
        names = sorted({s.name for s in self.slots if s.name})
        count = f"{len(self.slots)} {self.unit}{'' if len(self.slots) == 1 else 's'}"
        return f"{count} ({', '.join(names)})" if names else count

    def environment(self, ids: Sequence[str]) -> dict[str, str]:
        """What makes a process see the slots ``ids`` and no other device of this kind."""
        if self.kind not in VISIBLE:
            return {}
        env = {VISIBLE[self.kind]: ",".join(ids)}
        if self.kind == "cuda" and not {"CUDA_DEVICE_ORDER", VISIBLE["cuda"]} & os.environ.keys():
            env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # nvidia-smi's numbers; a choice made before was in CUDA's own order
        if self.kind == "tpu" and len(ids) == 1:
            env |= {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
        return env

    def seen_by(self, environment: Mapping[str, str]) -> list[str]:
        """The inverse: the slots that a process with this environment was given."""
        return [i for i in environment.get(VISIBLE.get(self.kind, ""), "").split(",") if i]


def find(use: str | None = None) -> Pool:
    """The pool of this machine.

    Without ``use`` the first word of JAX_PLATFORMS decides; without that too, TPU chips, then GPUs, where jax has what it needs
    to use them, else cores.

    Args:
      use: ``'cpu'``, ``'gpu'``, ``'cuda'``, ``'rocm'`` or ``'tpu'``, with ``':0,2'`` for some of them.

    Raises:
      LaunchError: when there are none of the kind that was asked for, or not the ones.
    """
    platform_asked = os.environ.get("JAX_PLATFORMS", "").partition(",")[0].strip()
    where, asked = ("--use", use) if use else ("JAX_PLATFORMS", platform_asked)
    kind, _, listed = asked.partition(":")
    if use and kind not in ("gpu", *UNITS):
        raise LaunchError([f"--use {use}: must be cpu, gpu, cuda, rocm or tpu, with numbers to choose some, such as gpu:0,1"])
    if not kind:
        return _by_itself()
    if kind not in ("gpu", *UNITS):
        return Pool(kind, (Slot("0"),))  # a platform that this module does not know: one member at a time has it all
    if kind == "gpu":
        kind = "cuda" if _gpus() or not _hip() else "rocm"
    there = (_cores() if listed else cores().slots) if kind == "cpu" else DETECT[kind]()
    if listed:
        names = {s.id: s.name for s in there}
        ids = [i for i in dict.fromkeys(listed.split(",")) if i]
        uuids = ("GPU-", "MIG-") if kind in ("cuda", "rocm") else ()  # may be shortened, and are listed of instances alone
        unknown = [i for i in ids if i not in names and not i.startswith(uuids)]
        if unknown and there:
            known = f"there are {', '.join(names)}; choose among them"
            raise LaunchError([f"{where} {asked}: no {UNITS[kind]} {', '.join(unknown)} here; {known}"])
        return Pool(kind, tuple(Slot(i, names.get(i, "")) for i in ids))
    if not there:
        looked = {"cuda": "nvidia-smi -L, /dev/nvidia*", "rocm": "/sys/class/kfd", "tpu": "/dev/accel*, /dev/vfio"}[kind]
        hidden = f", {VISIBLE[kind]}={os.environ[VISIBLE[kind]]!r}" if VISIBLE[kind] in os.environ else ""
        raise LaunchError(
            [f"{where} {asked}: no {UNITS[kind]} was found ({looked}{hidden}); name them, such as --use {kind}:0, or --use cpu"]
        )
    return Pool(kind, there)


def _by_itself() -> Pool:
    for kind, plugin in (("tpu", "libtpu"), ("cuda", "xla_cuda"), ("rocm", "xla_rocm")):
        there = DETECT[kind]()
        if there and _has_plugin(plugin):
            return Pool(kind, there)
        if there and kind != "tpu":  # /dev/vfio is not TPUs' alone
            extra = "pip install 'jax[cuda13]'" if kind == "cuda" else "install jax's ROCm plugin"
            found = Pool(kind, there).words()
            return dataclasses.replace(cores(), note=f"{found} cannot be used: jax has no plugin for them; {extra}")
    return cores()


def _has_plugin(name: str) -> bool:
    """Whether a package that lets jax use a platform is installed; asks without importing any."""
    if importlib.util.find_spec(name):
        return True
    plugins = importlib.util.find_spec("jax_plugins")
    places = plugins.submodule_search_locations if plugins else None
    return any(path.name.startswith(name) for place in places or () for path in pathlib.Path(place).glob("*"))


def _chosen(kind: str) -> list[str] | None:
    """What the user or the scheduler lets this process see; None without a choice."""
    text = os.environ.get(VISIBLE[kind])
    if text is None:
        return None
    ids: list[str] = []
    for word in (w.strip() for w in text.split(",")):
        if not word or word.startswith("-"):  # CUDA looks no further than the first that is none
            break
        ids.append(word)
    return ids


def _some(kind: str, there: list[Slot]) -> tuple[Slot, ...]:
    chosen = _chosen(kind)
    if chosen is None:
        return tuple(there)
    names = {s.name for s in there}  # the numbers chosen need not be the listed ones: a name only where all have it
    return tuple(Slot(i, next(iter(names)) if len(names) == 1 else "") for i in chosen)


def _gpus() -> tuple[Slot, ...]:
    """NVIDIA GPUs; of one that is cut into MIG instances, these."""
    found: list[Slot] = []
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=30).stdout
        gpu = ""
        whole: Slot | None = None
        for line in listed.splitlines():
            if match := re.match(r"GPU (\d+): (.*?) \(UUID", line):
                found += [whole] if whole else []
                gpu, whole = match[2], Slot(match[1], match[2])
            elif match := re.match(r"\s+MIG (\S+).*\(UUID: (MIG-[^)]+)\)", line):
                whole = None
                found.append(Slot(match[2], f"{gpu} MIG {match[1]}".strip()))
        found += [whole] if whole else []
    if not found:
        numbers = [m[1] for p in pathlib.Path("/dev").glob("nvidia*") if (m := re.fullmatch(r"nvidia(\d+)", p.name))]
        found = [Slot(n) for n in sorted(numbers, key=int)]
    return _some("cuda", found)


def _hip() -> tuple[Slot, ...]:
    """AMD GPUs: the nodes of the kernel driver that are GPUs (a CPU's gpu_id is 0)."""
    count = 0
    for path in pathlib.Path("/sys/class/kfd/kfd/topology/nodes").glob("*/gpu_id"):
        with contextlib.suppress(OSError):
            count += path.read_text().strip() != "0"
    return _some("rocm", [Slot(str(i)) for i in range(count)])


def _chips() -> tuple[Slot, ...]:
    """TPU chips: /dev/accel0… up to v4, /dev/vfio/0… after."""
    accel = [p for p in pathlib.Path("/dev").glob("accel*") if re.fullmatch(r"accel\d+", p.name)]
    vfio = [p for p in pathlib.Path("/dev/vfio").glob("*") if p.name.isdigit()]
    return _some("tpu", [Slot(str(i)) for i in range(len(accel or vfio))])


DETECT: dict[str, Callable[[], tuple[Slot, ...]]] = {"cuda": _gpus, "rocm": _hip, "tpu": _chips}


def cores() -> Pool:
    """The cores that this process may use, by number; as many as a container's quota pays for."""
    return Pool("cpu", _cores()).first(_quota())


def _cores() -> tuple[Slot, ...]:
    """The cores that this process may use, whatever quota there is."""
    usable = sorted(os.sched_getaffinity(0)) if PINNING else list(range(os.cpu_count() or 1))
    return tuple(Slot(str(c)) for c in usable)


def _quota() -> int | None:
    """Whole cores that the container may keep busy; None without a limit."""
    try:
        quota, period = CPU_QUOTA.read_text().split()
    except OSError:
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))


def describe(pool: Pool) -> str:
    """The machine in words, for the plan."""
    machine = f"{platform.machine()} {platform.system()}"
    if pool.kind != "cpu":
        return f"{machine}; a member has as many as its mesh asks for, and sees no other"
    pinned = "one member pinned to each" if PINNING else "members not pinned: this system has no pinning"
    return f"{machine}, {pinned}{f'; {pool.note}' if pool.note else ''}"
