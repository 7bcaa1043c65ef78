"""A worker that keeps the trainer's contract without training: for tests of the launcher that need many members quickly.

Losses follow a law, so that predictions can be made.  ``STUB_<member with _>`` in the environment makes a member end otherwise:
'error' (exit status 1, always), 'error once', 'refuse' (2), 'crash' (SIGSEGV), 'diverge at STEP'.
"""

import os
import pathlib
import signal
import sys
import time

from scaling import runs


def main(spec_path: pathlib.Path) -> int:
    folder = spec_path.parent
    spec, sweep = runs.read_json(spec_path), runs.read_json(folder.parent / runs.SWEEP)
    assert spec and sweep
    me = next(m for m in sweep["members"] if m["id"] == spec["id"])
    marks = [m["mark_tokens"] // m["batch_tokens"] for m in sweep["members"] if m["parent"] == spec["id"]]
    attempt = runs.claim_attempt(folder, {"pid": os.getpid(), "from_step": spec["fork_steps"]})
    fault = os.environ.get("STUB_" + spec["id"].replace("-", "_").replace(".", "_"), "")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    print(f"this is {spec['id']} on cores {sorted(os.sched_getaffinity(0))}, sees {visible}", flush=True)
    if fault == "error" or (fault == "error once" and attempt.stem == "000"):
        print("RuntimeError: the stub was told to fail", flush=True)
        return 1
    if fault == "refuse":
        return runs.BAD_CONFIG
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    end = int(fault.removeprefix("diverge at ")) if fault.startswith("diverge at ") else me["steps"]
    for step in sorted({*marks, end, end // 2}):
        if spec["fork_steps"] < step <= end:
            time.sleep(0.05)
            tokens = step * me["batch_tokens"]
            row = {"kind": "train", "step": step, "tokens": tokens, "flops": 0.0, "loss": law(me, tokens), "lr": 0.1}
            runs.append_jsonl(folder / runs.METRICS, row | {"tokens_per_second": 1e6, "mfu": 0.5})
            if step in marks:
                (folder / runs.CHECKPOINTS / str(step)).mkdir(parents=True, exist_ok=True)
    diverged = end != me["steps"]
    seconds = {"compile": 0.01, "train": 1.0, "idle": 0.1}
    runs.write_json(attempt, runs.read_json(attempt) | {"exit": "done", "seconds": seconds})
    loss = law(me, end * me["batch_tokens"])
    val = {
        "kind": "val",
        "step": end,
        "tokens": end * me["batch_tokens"],
        "flops": 0.0,
        "loss": loss,
        "bpb": loss,
        "loss_stderr": 0.01,
    }
    runs.append_jsonl(folder / runs.METRICS, val)
    done = {"status": "diverged" if diverged else "finished", "cause": "the stub was told to" if diverged else None}
    done |= {"val_loss": loss, "val_loss_stderr": 0.01, "val_bpb": loss, "train_loss": loss, "tokens": end * me["batch_tokens"]}
    done |= {"flops": me["flops"], "seconds": seconds, "steps": end, "digest": spec["digest"], "annealed": me["annealed"]}
    runs.write_json(folder / runs.DONE, done)
    return 0


def law(me: dict, tokens: int) -> float:
    return 1.0 + 40 / me["n_params"]["non_embedding"] ** 0.4 + 300 / tokens**0.5


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[-1])))
