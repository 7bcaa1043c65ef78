"""Five-shot MMLU: our scoring beside the real lm-evaluation-harness, which drives the same JAX model, in one run.

    python benchmarks/eval_speed.py                       # about 5 minutes on one quiet core; needs lm-eval
    python benchmarks/eval_speed.py --data FOLDER         # the real MMLU, in any layout that scaling.evals reads
    python benchmarks/eval_speed.py --data laptop --context 192 --format cloze --subjects 12

harness            its own requests, one per answer, each a whole prompt: padded to few lengths, in batches of like length, by
                   the model's CPU forms, with the softmax at the answer alone
ours               scaling.evals: a prefix per subject and a forward per item
harness, engine    the harness's requests through scaling.evals.harness, which has ours answer them

One core, one process, float32, random parameters (the work does not depend on what they say).  Every contender scores all
items twice; the first turn has its compilation, the second is what is compared.  Tokens are those of the harness's requests,
equal for all.  Prompts that are longer than the context lose their left end in all three.  Without ``--data`` items are made of
random words, about as long as MMLU's (half of its test items are below 395 bytes, 5 % above 1,574).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

REPO = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(REPO / "tests"), str(REPO)]

MEDIAN, SPREAD = 393, 0.6  # bytes of a zero-shot prompt, and the standard deviation of their logarithm
STEP, BATCH_TOKENS = 128, 1024  # of the harness's forwards: lengths are multiples of the one, rows together about the other


def write_items(folder: pathlib.Path, subjects: int, items: int) -> pathlib.Path:
    """MMLU's own layout (headerless CSV), filled with random words."""
    draw = random.Random(0)
    letters = "etaoinshrdlucmfw"

    def words(length: float) -> str:
        text = ""
        while len(text) < length:
            text += "".join(draw.choices(letters, k=draw.randint(2, 9))) + " "
        return text.strip()

    for split, rows in (("dev", 5), ("test", items)):
        (folder / split).mkdir(parents=True)
        for subject in range(subjects):
            with open(folder / split / f"subject_{subject}_{split}.csv", "w", newline="") as f:
                for _ in range(rows):
                    length = min(4980.0, draw.lognormvariate(0, SPREAD) * MEDIAN)
                    row = [words(0.6 * length), *(words(0.1 * length) for _ in "ABCD"), draw.choice("ABCD")]
                    csv.writer(f).writerow(row)
    return folder


def forward_per_request(config: Any, params: Any, tokenizer: Any) -> Any:
    """A model for the harness as its own are: every request a row of its own, rows of like length in a batch."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from lm_eval.api.model import TemplateLM

    from scaling import fast, model
    from scaling.tokenizer import EOS

    forms = fast.forms(jax.devices()[0])

    @jax.jit
    def answers(params: Any, tokens_BT: Any, at_BA: Any, target_BA: Any) -> Any:
        logits_BTV = model.apply(config, params, tokens_BT, forms=forms)
        rows_B1 = jnp.arange(len(tokens_BT))[:, None]
        log_p_BAV = jax.nn.log_softmax(logits_BTV[rows_B1, at_BA])
        return jnp.take_along_axis(log_p_BAV, target_BA[..., None], -1)[..., 0], log_p_BAV.argmax(-1) == target_BA

    class ForwardPerRequest(TemplateLM):
        eot_token_id = EOS
        seconds, asked = 0.0, 0  # inside the model; tokens

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
            return tokenizer.encode(string).tolist()

        def _loglikelihood_tokens(self, requests: Sequence[Any], **kwargs: Any) -> list[tuple[float, bool]]:
            started = time.process_time()
            sequences = [([EOS, *before, *after][-(config.context + 1) :], len(after)) for _, before, after in requests]
            order = sorted(range(len(sequences)), key=lambda i: len(sequences[i][0]))
            found: dict[int, tuple[float, bool]] = {}
            while order:
                length = -(-(len(sequences[order[-1]][0]) - 1) // STEP) * STEP
                rows = max(1, BATCH_TOKENS // length)
                chosen, order = order[-rows:], order[:-rows]
                found |= zip(chosen, self.batch([sequences[i] for i in chosen], rows, length), strict=True)
            self.seconds += time.process_time() - started
            self.asked += sum(len(ids) - 1 for ids, _ in sequences)
            return [found[i] for i in range(len(sequences))]

        def batch(self, sequences: Sequence[tuple[list[int], int]], rows: int, length: int) -> list[tuple[float, bool]]:
            most = max(n for _, n in sequences)
            tokens_BT = np.zeros((rows, length), np.int32)
            at_BA, target_BA, real_BA = (np.zeros((rows, most), d) for d in (np.int32, np.int32, bool))
            for b, (ids, n) in enumerate(sequences):
                tokens_BT[b, : len(ids) - 1] = ids[:-1]
                at_BA[b, :n] = np.arange(len(ids) - 1 - n, len(ids) - 1)
                target_BA[b, :n], real_BA[b, :n] = ids[-n:], True
            nats_BA, greedy_BA = (np.asarray(x) for x in answers(params, tokens_BT, at_BA, target_BA))
            sums = np.where(real_BA, nats_BA, 0).sum(1, dtype=np.float64)
            return [(float(x), bool(g)) for x, g in zip(sums, (greedy_BA | ~real_BA).all(1), strict=True)][: len(sequences)]

        loglikelihood_rolling = generate_until = None

    return ForwardPerRequest()


def write_harness_tasks(folder: pathlib.Path, suite: Any, format: str, shots: int) -> list[str]:
    """The suite's tasks as the harness's: MMLU by its own template, other formats as contexts and choices of ours."""
    from oracles import harness_tasks

    from scaling.evals import prompts
    from scaling.evals.items import DEV, TEST

    names = [f"speed_{task.name}" for task in suite.tasks]
    if format == "letter":
        rows = {
            task.name: tuple([(i.question, i.choices, i.answer) for i in task.splits[split]] for split in (DEV, TEST))
            for task in suite.tasks
        }
        harness_tasks.write_mmlu(folder, "speed", rows, shots)
        return names
    for task, name in zip(suite.tasks, names, strict=True):
        asked = [(r.item, r.prefix + r.options[0][0], [c for _, c in r.options]) for r in prompts.requests(task, format, shots)]
        harness_tasks.write_task(
            folder, name, [{"context": context, "choices": choices, "gold": item.answer} for item, context, choices in asked],
            output_type="multiple_choice", doc_to_text="{{context}}", doc_to_choice="{{choices}}", doc_to_target="gold",
            target_delimiter="", metric_list=[{"metric": "acc"}],
        )  # fmt: skip
    return names


def in_turns(contenders: dict[str, Callable[[], list[int]]]) -> dict[str, tuple[list[float], list[int]]]:
    """CPU-seconds of two runs of each contender, and the choices it made."""
    found = {}
    for name, run in contenders.items():
        seconds = []
        for _ in range(2):
            started = time.process_time()
            choices = run()
            seconds.append(time.process_time() - started)
        found[name] = seconds, choices
        print(f"{name}: {seconds[0]:.1f} s with compilation, {seconds[1]:.1f} s without", file=sys.stderr, flush=True)
    return found


def compare(args: argparse.Namespace, folder: pathlib.Path) -> None:
    """Scores the items by all contenders and prints their rows."""
    import jax
    import lm_eval
    import numpy as np
    from lm_eval.tasks import TaskManager

    from scaling import model
    from scaling.config import model_config
    from scaling.evals import harness, metrics, scoring, suites
    from scaling.evals.engine import Engine
    from scaling.evals.items import TEST
    from scaling.tokenizer import ByteTokenizer

    suite = suites.find(args.data or str(write_items(folder / "items", args.subjects, args.items)))
    tasks = [tasks[i] for i in range(args.subjects) for tasks in suite.groups().values() if i < len(tasks)] or suite.tasks
    cut = [dataclasses.replace(t, splits={**t.splits, TEST: t.splits[TEST][: args.items]}) for t in tasks[: args.subjects]]
    suite = dataclasses.replace(suite, tasks=tuple(cut))
    names = write_harness_tasks(folder, suite, args.format, args.shots)
    loaded = TaskManager(include_path=str(folder), include_defaults=False).load(names)

    config = model_config(args.size, context=args.context, head_size=16)
    params, tokenizer = model.init(config, jax.random.key(0)), ByteTokenizer()
    apart = forward_per_request(config, params, tokenizer)
    engine = Engine(config, params, tokenizer)
    through_engine = harness.language_model(engine)
    truncated: list[bool] = []
    fed = [0]

    def by_harness(lm: Any) -> list[int]:
        found = lm_eval.evaluate(lm, loaded, bootstrap_iters=0)["samples"]
        in_order = [sorted(found[name], key=lambda s: s["doc_id"]) for name in names]
        return [int(np.argmax([nats for nats, _ in s["filtered_resps"]])) for samples in in_order for s in samples]

    def by_ours() -> list[int]:
        before, options = engine.fed, (args.format, args.shots, "left_truncate")
        scored = [s for t in suite.tasks for s in scoring.score(engine, t, t.splits[TEST], *options).scored]
        truncated[:], fed[:] = [s.truncated for s in scored], [engine.fed - before]
        return metrics.choices_made(scored).tolist()

    found = in_turns({
        "harness": lambda: by_harness(apart), "ours": by_ours, "harness, engine": lambda: by_harness(through_engine),
    })  # fmt: skip
    report(found, config, suite, apart, fed[0], sum(truncated))


def report(found: Any, config: Any, suite: Any, apart: Any, fed: int, truncated: int) -> None:
    """A row for each contender: items and tokens per CPU-second, times the harness's, and equal choices."""
    theirs, reference = found["harness"]
    items, tokens = len(reference), apart.asked // 2  # of one of its two runs
    shape = f"depth {config.depth}, D {config.width}, H {config.heads}, context {config.context}"
    print(f"\n{shape}; {items} items of {len(suite.tasks)} tasks, {truncated} longer than the context and cut at the left")
    print(f"the harness asks {tokens / items:,.0f} tokens an item; ours reads {fed / items:,.0f}, prefixes included")
    print(f"{apart.seconds / sum(theirs):.0%} of the harness's time is spent in the model")
    print(f"{'':>16} {'items/CPU-s':>12} {'tokens/CPU-s':>13} {'/ harness':>10} {'same choice':>12} {'with compiling':>15}")
    for name, (seconds, choices) in found.items():
        same = sum(a == b for a, b in zip(choices, reference, strict=True))
        row = f"{items / seconds[1]:>12,.2f} {tokens / seconds[1]:>13,.0f} {theirs[1] / seconds[1]:>10.2f}"
        print(f"{name:>16} {row} {f'{same} of {items}':>12} {seconds[0]:>13.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FOLDER", help="items of a benchmark, or the name of a suite (default: random words)")
    parser.add_argument("--size", default="600K", help="of the model (default: the largest of the default ladder)")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--format", default="letter", choices=("letter", "cloze"))
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--subjects", type=int, default=2, help="how many, from each group in turn")
    parser.add_argument("--items", type=int, default=50, help="of each subject")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before XLA counts cores
    with tempfile.TemporaryDirectory() as folder:
        compare(args, pathlib.Path(folder))


if __name__ == "__main__":
    main()
