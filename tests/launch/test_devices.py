"""One host, many devices: found without jax, one member on each, seen by its process alone.  The list of devices is a fake one
(an ``nvidia-smi`` of the tests' own), the processes are real and report what they saw."""

import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable

import pytest
from test_runner import Ran, from_the_repository, launch, prepared_sweep, seen_submissions, write

from scaling import runs
from scaling.launch import devices, estimate, prepare, schedule
from scaling.launch.backend import Job
from scaling.launch.devices import Pool, Slot
from scaling.launch.folder import LaunchError
from scaling.launch.local import LocalBackend
from scaling.launch.schedule import Facts

__all__ = ["from_the_repository"]  # a fixture that every test here uses
H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB"
TWO = f"GPU 0: {H100} (UUID: GPU-aaaa-1)\nGPU 1: {H100} (UUID: GPU-bbbb-2)\n"
MIXED = f"GPU 0: {H100} (UUID: GPU-aaaa-1)\nGPU 1: {A100} (UUID: GPU-bbbb-2)\n"
MIG = (
    f"GPU 0: {A100} (UUID: GPU-aaaa-1)\n  MIG 3g.20gb     Device  0: (UUID: MIG-cccc)\n"
    f"  MIG 3g.20gb     Device  1: (UUID: MIG-dddd)\nGPU 1: {A100} (UUID: GPU-bbbb-2)\n"
)
CHIPS = tuple(Slot(str(i)) for i in range(4))
VARIABLES = (
    "JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS", "CUDA_DEVICE_ORDER",
    "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION",
)  # fmt: skip


@pytest.fixture
def smi(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts an ``nvidia-smi`` that lists what it is given first on the path; forgets what this process was told of devices."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # claims of its own
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    def lists(text: str) -> None:
        program.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] || exit 1\ncat <<'END'\n{text}END\n")
        program.chmod(0o755)

    return lists


@pytest.fixture
def plugin(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package by which jax could use NVIDIA GPUs."""
    place = tmp_path / "site" / "jax_plugins" / "xla_cuda13"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("raise ImportError('nobody imports it here')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def ids(pool: Pool) -> list[str]:
    return [slot.id for slot in pool.slots]


def test_gpus_are_used_where_jax_can_use_them(smi, plugin, monkeypatch) -> None:
    """Fails when GPUs are left alone, or the user's JAX_PLATFORMS=cpu is overruled."""
    smi(TWO)
    assert devices.find() == Pool("cuda", (Slot("0", H100), Slot("1", H100)))
    assert devices.find().words() == f"2 GPUs ({H100})"
    for text, kind in (("cpu", "cpu"), ("cuda,cpu", "cuda"), ("gpu", "cuda")):
        monkeypatch.setenv("JAX_PLATFORMS", text)
        assert devices.find().kind == kind
    assert devices.find("cpu") == devices.cores()


def test_gpus_without_a_plugin_are_named_and_left(smi, monkeypatch) -> None:
    """Fails when members are sent to GPUs that their jax cannot use, or the user is not told why they are not."""
    smi(TWO)
    monkeypatch.setattr(devices, "_has_plugin", lambda name: False)  # this machine's jax may have it
    pool = devices.find()
    assert pool.kind == "cpu" and pool.slots == devices.cores().slots
    assert "2 GPUs" in pool.note and "jax[cuda13]" in devices.describe(pool)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("1", ["1"]), ("1,0", ["1", "0"]), ("0,-1,1", ["0"]), ("GPU-bbbb-2", ["GPU-bbbb-2"]), ("", None), ("-1", None)],
)
def test_what_the_scheduler_made_visible_is_all(smi, monkeypatch, visible: str, expected: list[str] | None) -> None:
    """Fails when a device is used that the user or a scheduler did not give."""
    smi(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if expected is None:
        with pytest.raises(LaunchError, match="CUDA_VISIBLE_DEVICES"):
            devices.find("gpu")
    else:
        assert ids(devices.find("gpu")) == expected


def test_a_choice_made_before_keeps_its_numbering(smi, monkeypatch) -> None:
    """Fails when the user's GPU 1, in CUDA's order, becomes nvidia-smi's GPU 1, or is given that one's name."""
    smi(MIXED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    pool = devices.find("gpu")
    assert pool.environment(["1"]) == {"CUDA_VISIBLE_DEVICES": "1"} and pool.slots == (Slot("1"),)
    smi(TWO)
    assert devices.find("gpu").slots == (Slot("1", H100),)


def test_instances_of_a_divided_gpu(smi) -> None:
    """Fails when a GPU that is cut into instances counts as one, an undivided one is lost, an instance is named after another
    one, or one that is listed before any GPU ends in a traceback."""
    smi(MIG)
    part = f"{A100} MIG 3g.20gb"
    assert devices.find("cuda").slots == (Slot("MIG-cccc", part), Slot("MIG-dddd", part), Slot("1", A100))
    smi(MIG.partition("\n")[2])
    assert ids(devices.find("cuda")) == ["MIG-cccc", "MIG-dddd", "1"]


def test_some_of_them_can_be_chosen(smi) -> None:
    """Fails when --use gpu:1 takes another, takes one twice, or a slip is taken for the CPU."""
    smi(TWO)
    assert devices.find("gpu:1").slots == (Slot("1", H100),) and ids(devices.find("cuda:1,0,1")) == ["1", "0"]
    with pytest.raises(LaunchError, match=r"--use gpus: must be cpu, gpu"):
        devices.find("gpus")
    with pytest.raises(LaunchError, match=r"--use tpu: no TPU chip was found .* --use tpu:0, or --use cpu"):
        devices.find("tpu")


@pytest.mark.parametrize(
    ("use", "said"),
    [("gpu:7", "no GPU 7 here; there are 0, 1; choose"), ("gpu:1,x,2", "no GPU x, 2 here"), ("cpu:x", "no core x here"),
     ("cpu:99999", "no core 99999 here"), ("cpu:GPU-aaaa-1", "no core GPU-aaaa-1 here")],
)  # fmt: skip
def test_ones_that_are_not_there_are_refused(smi, use: str, said: str) -> None:
    """Fails when members are sent to a core or a GPU that there is not, or the user is not told which there are."""
    smi(TWO)
    with pytest.raises(LaunchError, match=f"--use {use}: {said}"):
        devices.find(use)


def test_ones_that_cannot_be_checked_are_taken(smi, monkeypatch) -> None:
    """Fails when a GPU's UUID, which CUDA takes, is refused, or a core beyond as many as a container's quota pays for, or any
    number where nothing could be found."""
    smi(TWO)
    assert ids(devices.find("gpu:GPU-bbbb-2,MIG-cccc")) == ["GPU-bbbb-2", "MIG-cccc"]
    last = devices.cores().slots[-1].id
    monkeypatch.setattr(devices, "_quota", lambda: 0)
    assert ids(devices.find(f"cpu:{last}")) == [last]
    monkeypatch.setitem(devices.DETECT, "tpu", lambda: ())
    assert ids(devices.find("tpu:2")) == ["2"]


SHOW = f"import os, sys, time; print({{k: os.environ.get(k) for k in {VARIABLES!r}}}, os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else 0, flush=True); time.sleep(float(sys.argv[1]))"  # noqa: E501


def submit(backend: LocalBackend, place: pathlib.Path, name: str, seconds: float = 60, **more):
    return backend.submit(Job(name, (sys.executable, "-c", SHOW, str(seconds)), place / name / "log", 1, **more))


def seen(place: pathlib.Path, name: str) -> str:
    end = time.monotonic() + 20
    while not (text := (place / name / "log").read_text()).endswith("\n"):
        assert time.monotonic() < end
        time.sleep(0.01)
    return text


def wait_until_gone(backend: LocalBackend, handles: dict) -> None:
    end = time.monotonic() + 20
    while any(r.running for r in backend.poll(handles).values()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_process_sees_one_gpu_and_most_of_its_memory(smi, tmp_path) -> None:
    """Fails when two members share a device, one sees another or too little memory, or is tied to one core."""
    smi(TWO)
    pool = devices.find("gpu")
    backend, other = LocalBackend(pool), LocalBackend(pool)
    a, b = submit(backend, tmp_path, "a"), submit(backend, tmp_path, "b")
    assert a is not None and b is not None and submit(backend, tmp_path, "c") is None
    assert submit(other, tmp_path, "c") is None, "another sweep was given a GPU that is taken"
    for name, gpu in (("a", "0"), ("b", "1")):
        text = seen(tmp_path, name)
        for word in (f"'CUDA_VISIBLE_DEVICES': '{gpu}'", "'JAX_PLATFORMS': 'cuda'", "'CUDA_DEVICE_ORDER': 'PCI_BUS_ID'",
                     "'XLA_CLIENT_MEM_FRACTION': '0.9'"):  # fmt: skip
            assert word in text
        if devices.PINNING:
            assert str(os.sched_getaffinity(0)) in text
    assert backend.where(b) == "GPU 1"
    os.kill(a["pid"], signal.SIGKILL)
    wait_until_gone(backend, {"a": a})
    backend.poll({"b": b})
    c = submit(other, tmp_path, "c")  # the system gave the killed worker's GPU back
    assert c is not None and c["slots"] == ["0"]
    for handle in (b, c):
        os.kill(handle["pid"], signal.SIGKILL)
        wait_until_gone(backend, {"x": handle})


def test_a_lost_handle_tells_its_gpu_again(smi, tmp_path) -> None:
    """Fails when the GPU of a worker that outlived its launcher is given to another member."""
    smi(TWO)
    backend, later = LocalBackend(devices.find("gpu:1,0")), LocalBackend(devices.find("gpu"))
    job = Job("a", (sys.executable, "-c", SHOW, "60"), tmp_path / "a" / "log", 1)
    handle = backend.submit(job)
    assert handle is not None
    seen(tmp_path, "a")
    found = later.find([job])
    os.kill(handle["pid"], signal.SIGKILL)
    wait_until_gone(backend, {"a": handle})
    assert found["a"]["slots"] == ["1"] == handle["slots"]


def test_the_users_own_settings_stay(smi, monkeypatch) -> None:
    """Fails when a memory share that the user set is overruled, or two that jax refuses together are set."""
    smi(TWO)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    pool = devices.find()
    env = LocalBackend(pool).environment() | pool.environment(["1"])
    assert env == {"PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": "1"}


def test_chips_of_a_tpu_host(monkeypatch) -> None:
    """Fails when a chip's process would take the whole host, or one of all chips is held to a chip's bounds."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setitem(devices.DETECT, "tpu", lambda: CHIPS)
    pool = devices.find("tpu")
    one = {"TPU_VISIBLE_CHIPS": "2", "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
    assert pool.environment(["2"]) == one and pool.environment(ids(pool)) == {"TPU_VISIBLE_CHIPS": "0,1,2,3"}
    assert LocalBackend(pool).environment()["JAX_PLATFORMS"] == "tpu" and pool.seen_by(one) == ["2"]


def on(tmp_path, store, use: str, **more) -> prepare.Prepared:
    return prepared_sweep(tmp_path, store, ("13K",), use=use, **more)


def test_a_sweep_runs_one_member_on_each(smi, tmp_path, store) -> None:
    """Fails when a member of the sweep does not have a GPU of its own, or the plan and the specs speak of cores."""
    smi(TWO)
    ran: Ran = launch(tmp_path, store, ("13K",), use="gpu")
    assert {str(phase) for phase in ran.now.values()} == {"finished"}
    used = [(i.path / runs.LOG).read_text().splitlines()[0].rpartition("sees ")[2] for i in ran.prepared.items]
    assert set(used) == {"0", "1"}
    spec, sweep = runs.read_json(ran.prepared.items[0].path / runs.SPEC), runs.read_json(ran.prepared.folder / runs.SWEEP)
    assert spec is not None and (spec["devices"], spec["device_kind"], spec.get("cores")) == (1, "cuda", None)
    assert sweep is not None and {m["devices"] for m in sweep["members"]} == {1}


def test_waiting_members_start_in_the_plans_order(smi, tmp_path, store, monkeypatch) -> None:
    """Fails when members that wait for a GPU are given one in another order than the plan's."""
    smi(TWO)
    prepared = on(tmp_path, store, "gpu")
    write(prepared)
    trunk, *branches = prepared.items
    runs.write_json(trunk.path / runs.DONE, {"status": "finished"})
    for branch in branches:  # all may start at once
        branch.mark.mkdir(parents=True)
    facts = {i.id: Facts("finished" if i is trunk else None) for i in prepared.items}
    tasks = [estimate.task(i, estimate.rates(prepared.items, prepared.pool), facts[i.id]) for i in prepared.items]
    order = schedule.ORDERS[schedule.choose_order(tasks, facts, 2).name](tasks)
    started: list[str] = []
    seen_submissions(monkeypatch, lambda job, handle: started.append(job.name) if handle else None)
    launch(tmp_path, store, ("13K",), use="gpu")
    assert started == [task.id for task in order if task.id != trunk.id] and len(started) == 3


def test_a_member_takes_as_many_as_its_mesh(smi, tmp_path, store, monkeypatch) -> None:
    """Fails when a mesh of two is given one device, or one that cannot be had is found out only by the trainer."""
    smi(TWO)
    assert {i.slots for i in on(tmp_path, store, "gpu", **{"machine.data": 2}).items} == {2}
    assert {i.slots for i in on(tmp_path, store, "gpu", **{"machine.data": 0}).items} == {2}
    with pytest.raises(LaunchError, match="its mesh takes 4 GPUs, here are 2; lower an axis"):
        on(tmp_path, store, "gpu", **{"machine.data": 4})
    monkeypatch.setitem(devices.DETECT, "tpu", lambda: CHIPS)
    with pytest.raises(LaunchError, match="one by one or all together"):
        on(tmp_path, store, "tpu", **{"machine.data": 2})


def test_a_retry_takes_the_same_kind_of_device(smi, tmp_path, store) -> None:
    """Fails when a member that was started on one kind of device goes on, with other roundings, on another."""
    smi(MIXED)
    first = on(tmp_path, store, "gpu")
    write(first)
    trunk = first.items[0]
    runs.claim_attempt(trunk.path, {})
    runs.write_json(trunk.path / runs.ENV, {"devices": [A100]})
    again = on(tmp_path, store, "gpu").items[0]
    assert again.job.device == A100 and first.items[1].job.device is None
    backend = LocalBackend(devices.find("gpu"))
    handle = submit(backend, tmp_path, "a", seconds=0, device=again.job.device)
    assert handle is not None and handle["slots"] == ["1"]
    wait_until_gone(backend, {"a": handle})
    for use, here in (("cpu", "core"), ("gpu:0", H100)):
        with pytest.raises(LaunchError, match=f"was started on {A100}.*, and here are .*{here}"):
            on(tmp_path, store, use)


def test_times_of_devices_are_no_times_of_cores(smi, tmp_path, store) -> None:
    """Fails when the plan for GPUs measures this machine's core instead."""
    smi(TWO)
    prepared = on(tmp_path, store, "gpu")
    rate = estimate.rates(prepared.items, prepared.pool)
    assert H100 in rate.source and rate.flops_per_second == pytest.approx(0.1 * 989e12)
