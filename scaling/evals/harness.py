"""The real lm-evaluation-harness runs our models: ``python -m scaling.evals.harness --run … --tasks …``.

It asks and scores by its own rules, of which ours (``scaling.evals``) reproduce the numbers; here it is given the model alone,
as the three kinds of request that it makes of one.  It finds tasks among its own, and in folders of YAML files
(``--include-path``); most of its own fetch their data from the Hugging Face hub, files that a task names are read offline.

    python -m scaling.evals.harness --run runs/ladder --tasks lambada_openai,piqa
    HF_HUB_OFFLINE=1 python -m scaling.evals.harness --run runs/one --include-path my_tasks --tasks mine --num-fewshot 5

The table is printed, and a row with it is appended to ``harness.jsonl`` in each member's folder.  Needs the extra ``harness``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling import cli, runs, units
from scaling.evals.items import TaskError
from scaling.store import StoreError
from scaling.tokenizer import EOS, VocabularyError

if TYPE_CHECKING:
    from scaling import decode
    from scaling.evals.engine import Engine

RESULTS = "harness.jsonl"
ROWS = 16  # generated at a time
BOOTSTRAPS = 1000  # resamples for the standard errors of perplexities; accuracies have theirs in closed form


def require() -> None:
    """Raises TaskError, with what to install, where lm-evaluation-harness is not there."""
    if importlib.util.find_spec("lm_eval") is None:
        raise TaskError("needs lm-evaluation-harness, which is not installed: pip install 'scalingladder[harness]'")


def language_model(engine: Engine) -> Any:
    """An ``lm_eval.api.model.TemplateLM`` that answers by ``engine``.

    A prompt longer than the context loses its left end, as in the harness's own models.  An empty context is the
    end-of-document token, as before every document of training.

    Raises:
      TaskError: where lm-evaluation-harness is not installed; while it runs, for a continuation that is longer than the
        context, and for a generation that leaves no room for its prompt.
    """
    require()
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    from tqdm import tqdm

    from scaling import decode

    context = engine.config.context

    class LadderModel(TemplateLM):
        """One of our models, as lm-evaluation-harness sees it."""

        eot_token_id = EOS

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
            return engine.tokenizer.encode(string).tolist()

        def _loglikelihood_tokens(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            answers = self.answers([(before, after) for _, before, after in requests], disable_tqdm)
            for (texts, _, _), answer in zip(requests, answers, strict=True):
                self.cache_hook.add_partial("loglikelihood", texts, answer)
            return answers

        def answers(self, pairs: Sequence[tuple[list[int], list[int]]], disable_tqdm: bool) -> list[tuple[float, bool]]:
            arrays = [(np.array(before, np.int32), np.array(after, np.int32)) for before, after in pairs]
            with tqdm(total=len(pairs), desc="log-likelihoods", disable=disable_tqdm) as bar:
                try:
                    return engine.loglikelihoods(arrays, advance=bar.update)
                except ValueError as error:
                    raise TaskError(f"a request of the harness cannot be scored: {error}") from None

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            pairs, owners = [], []
            for owner, request in enumerate(requests):
                tokens = self.tok_encode(request.args[0])
                windows = get_rolling_token_windows(tokens, prefix_token=EOS, max_seq_len=context, context_len=1)
                for window in windows:
                    pairs.append(make_disjoint_window(window))
                    owners.append(owner)
            sums = [0.0] * len(requests)
            for owner, (nats, _) in zip(owners, self.answers(pairs, disable_tqdm), strict=True):
                sums[owner] += nats
            return sums

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            by_rule: dict[decode.Rule, list[int]] = {}
            for i, request in enumerate(requests):
                by_rule.setdefault(rule_of(request.args[1], context), []).append(i)
            texts = [""] * len(requests)
            with tqdm(total=len(requests), desc="generations", disable=disable_tqdm) as bar:
                for rule, indices in by_rule.items():
                    room = context - (rule.max_tokens or 0)
                    prompts = {i: np.array([EOS, *self.tok_encode(requests[i].args[0])], np.int32)[-room:] for i in indices}
                    indices.sort(key=lambda i: len(prompts[i]))
                    for chunk in (indices[n : n + ROWS] for n in range(0, len(indices), ROWS)):
                        full = chunk + chunk[-1:] * (ROWS - len(chunk))  # one shape for all
                        model = engine.config, engine.params, engine.tokenizer
                        found = decode.generate(*model, [prompts[i] for i in full], rule, seeds=full)
                        for i, completion in zip(chunk, found, strict=False):
                            texts[i] = completion.text
                            self.cache_hook.add_partial("generate_until", requests[i].args, completion.text)
                        bar.update(len(chunk))
            return texts

    return LadderModel()


def rule_of(asked: dict[str, Any], context: int) -> decode.Rule:
    """What a task's ``generation_kwargs`` mean here.

    Raises:
      TaskError: for a setting that ``scaling.decode`` does not have, and for more tokens than leave room for a prompt.
    """
    from lm_eval.models.utils import normalize_gen_kwargs

    from scaling import decode

    given: dict[str, Any] = dict(normalize_gen_kwargs(asked))
    until, room, temperature = given.pop("until"), given.pop("max_gen_toks"), float(given.pop("temperature", 0.0))
    del given["do_sample"]  # it has decided the temperature
    top_k, top_p = int(given.pop("top_k", 0)) or None, float(given.pop("top_p", 1.0))
    if given:
        raise TaskError(f"generation_kwargs {given}: not among until, max_gen_toks, do_sample, temperature, top_k and top_p")
    if room >= context:
        raise TaskError(
            f"generation_kwargs max_gen_toks={room}: leaves no room for a prompt in the model's context of {context}; set it "
            f"with --gen-kwargs max_gen_toks={context // 4}"
        )
    stop = tuple(text for text in until if text)
    if temperature == 0:
        return decode.Rule(room, stop=stop)
    return decode.Rule(room, temperature, top_k, top_p, stop)


def evaluate(
    engine: Engine,
    tasks: Sequence[str],
    *,
    include_path: str | os.PathLike[str] | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    gen_kwargs: str | None = None,
) -> dict[str, Any]:
    """What ``lm_eval.simple_evaluate`` returns for a model of ours, with every sample logged.

    Args:
      tasks: names of tasks, groups or tags.
      include_path: a folder of YAML files, to look for them there instead of among the harness's own.
      num_fewshot: shots, of tasks that do not set them to 0 themselves; where nobody says, the harness takes 0, also of MMLU.
      limit: of items of each task.
      gen_kwargs: for generations, over what the tasks say, such as 'max_gen_toks=32'.

    Raises:
      TaskError: as ``task_manager`` and ``language_model``, and where a task's data cannot be loaded.
    """
    manager = task_manager(tasks, include_path)
    from lm_eval import simple_evaluate

    os.environ["DISABLE_MULTIPROC"] = "1"  # its bootstrap in processes would fork this one, with JAX's threads
    try:
        return simple_evaluate(
            language_model(engine),
            tasks=list(tasks),
            task_manager=manager,
            num_fewshot=num_fewshot,
            limit=limit,
            gen_kwargs=gen_kwargs,
            bootstrap_iters=BOOTSTRAPS,
            torch_random_seed=None,  # else it imports torch to set it
        )
    except OSError as error:  # of ``datasets``: offline, no such dataset, no such file
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TaskError(
            f"--tasks {','.join(tasks)}: data cannot be loaded ({why:.300}); most of the harness's tasks fetch theirs from the "
            f"Hugging Face hub, one in --include-path can name files in dataset_kwargs"
        ) from None


def task_manager(tasks: Sequence[str], include_path: str | os.PathLike[str] | None = None) -> Any:
    """The harness's index of the tasks in ``include_path``, by default of its own thousands, which takes some seconds to read.

    Raises:
      TaskError: for a name that is not there, a folder that is missing, or where lm-evaluation-harness is not installed.
    """
    require()
    from lm_eval.tasks import TaskManager

    if include_path is not None and not pathlib.Path(include_path).is_dir():
        raise TaskError(f"--include-path {include_path}: no such folder; give one with YAML files of the harness")
    manager = TaskManager(include_path=include_path and str(include_path), include_defaults=include_path is None)
    known = manager.all_tasks
    for name in tasks:
        if name not in known:
            where = include_path or "lm-evaluation-harness's own"
            some = f"there are {', '.join(known[:20])}" if len(known) <= 20 else f"there are {len(known)}"
            raise TaskError(f"--tasks {name}: not among the tasks of {where}; {some}.{units.did_you_mean(name, known)}")
    return manager


# ---- the command


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    return cli.guarded(lambda: _run(_parser().parse_args(argv)), TaskError, StoreError, VocabularyError)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m scaling.evals.harness",
        description="Runs lm-evaluation-harness on trained members.",
        epilog="examples:\n"
        "  python -m scaling.evals.harness --run runs/ladder --tasks lambada_openai,piqa\n"
        "  python -m scaling.evals.harness --run runs/one --include-path my_tasks --tasks mine --num-fewshot 5",
    )
    parser.add_argument("--run", required=True, help="a member's folder, or a sweep's, of which every member is scored")
    parser.add_argument("--step", type=int, metavar="N", help="of which checkpoint (default: the newest)")
    parser.add_argument("--tasks", type=_words, required=True, metavar="A,B", help="tasks, groups and tags of the harness")
    parser.add_argument("--include-path", metavar="FOLDER", help="of YAML files to find tasks in, instead of the harness's own")
    parser.add_argument("--num-fewshot", type=int, metavar="N", help="shots (default: as each task says, else 0)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N items of each task")
    parser.add_argument("--gen-kwargs", metavar="A=B", help="for generations, over what tasks say: max_gen_toks=32")
    return parser


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _run(args: argparse.Namespace) -> int:
    members = runs.members(args.run)
    task_manager(args.tasks, args.include_path)  # so that a wrong name is told before a model is loaded
    from lm_eval.utils import make_table

    from scaling.evals.engine import Engine
    from scaling.members import open_member
    from scaling.train import set_up_jax

    for member in members:
        opened = open_member(member.path, args.step)
        set_up_jax(opened.config.machine)
        results = evaluate(
            Engine(opened.config.model, opened.params, opened.tokenizer),
            args.tasks,
            include_path=args.include_path,
            num_fewshot=args.num_fewshot,
            limit=args.limit,
            gen_kwargs=args.gen_kwargs,
        )
        told = {key: results[key] for key in ("results", "groups", "versions", "n-shot", "n-samples") if key in results}
        position = {"step": opened.step, "tokens": opened.tokens, "flops": opened.flops}
        version = {"lm_eval": metadata.version("lm_eval"), "limit": args.limit, "at": time.time()}
        runs.append_jsonl(member.path / RESULTS, json.loads(json.dumps(position | version | told, default=str)))
        print(f"{member.id} step {opened.step:,}\n{make_table(results)}")
        print(f"{make_table(results, 'groups')}\n" * ("groups" in results) + str(member.path / RESULTS), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
