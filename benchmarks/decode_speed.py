"""Tokens per CPU-second of decoding: with the cache, without it, and Hugging Face generate of the same weights, in one run.

    python benchmarks/decode_speed.py                 # about 2 minutes; needs torch and transformers
    python benchmarks/decode_speed.py --size 50K --context 64 --tokens 16 --rounds 1

The shape of the default ladder's largest rung (600K, heads of 16) with a context of 512, float32, greedy, on one core, in
turns, medians over the rounds; compilation apart.

cache, 1      ``decode.generate`` of one prompt of 32 bytes, the host's part included
cache, 16     of sixteen such prompts together, tokens of all of them
no cache, 1   the whole context computed again for every token, in one compiled loop
HF, 1         transformers' generate with its own cache, of the weights that scaling.hf writes

The share of tokens that HF generate makes equally says that the same thing was computed: after a near-tie, which rounding
decides, two greedy texts part.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

PROMPT, MANY = 32, 16


def never_ending(params: Any) -> Any:
    """The parameters with logits of zero for the end of a text, so that every text has its full length."""
    from scaling.tokenizer import EOS

    return params | {"head": params["head"].at[:, EOS].set(0.0)}


def without_cache(c: Any, tokens: int) -> Callable[[Any, Any], Any]:
    """(params, prompt ids (PROMPT,)) -> ``tokens`` greedy ids, each from the logits of the whole context."""
    import jax
    import jax.numpy as jnp

    from scaling import fast, model

    @jax.jit
    def run(params: Any, ids: Any) -> Any:
        def one(i: Any, window_1T: Any) -> Any:
            logits_1TV = model.apply(c, params, window_1T, forms=fast.forms(jax.devices()[0]))
            token = logits_1TV[0, PROMPT + i - 1].argmax().astype(jnp.int32)
            return window_1T.at[0, PROMPT + i].set(token)

        window_1T = jnp.zeros((1, c.context), jnp.int32).at[0, :PROMPT].set(ids)
        return jax.lax.fori_loop(0, tokens, one, window_1T)[0, PROMPT : PROMPT + tokens]

    return run


def hugging_face(c: Any, params: Any) -> Callable[[np.ndarray, int], np.ndarray]:
    """(prompt ids, tokens) -> greedy ids, by transformers."""
    import torch
    import transformers

    from scaling import hf

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        hf.write(f"{folder}/model", c, params)
        network = transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/model").eval()

    def run(ids: np.ndarray, tokens: int) -> np.ndarray:
        start = torch.tensor(ids[None], dtype=torch.long)
        with torch.no_grad():
            out = network.generate(
                start,
                attention_mask=torch.ones_like(start),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )
        return out[0, len(ids) :].numpy()

    return run


def contenders(args: argparse.Namespace) -> dict[str, Callable[[], np.ndarray]]:
    """Name -> a call that returns its tokens (rows, tokens)."""
    import jax

    from scaling import decode, model, tokenizer

    c = model.size(args.size, head_size=16, context=args.context)
    params = never_ending(jax.jit(functools.partial(model.init, c))(jax.random.key(0)))
    letters = np.random.default_rng(0).integers(ord("a"), ord("z") + 1, (MANY, PROMPT), dtype=np.uint8)
    prompts = [bytes(row).decode() for row in letters]
    words = tokenizer.byte_tokenizer()
    rule = decode.Rule(max_tokens=args.tokens)
    ids = words.encode(prompts[0])

    def ours(rows: int) -> np.ndarray:
        return np.stack([out.ids for out in decode.generate(c, params, words, prompts[:rows], rule)])

    slow = without_cache(c, args.tokens)
    calls = {
        "cache, 1": lambda: ours(1),
        f"cache, {MANY}": lambda: ours(MANY),
        "no cache, 1": lambda: np.asarray(slow(params, ids))[None],
    }
    if not args.no_peer:
        theirs = hugging_face(c, params)
        calls["HF, 1"] = lambda: theirs(ids, args.tokens)[None]
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="600K")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=256, help="new tokens of each text")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peer", action="store_true", help="leave Hugging Face out")
    args = parser.parse_args()
    if PROMPT + args.tokens > args.context:
        sys.exit(f"--tokens {args.tokens}: beside a prompt of {PROMPT} the context of {args.context} has no room for so many")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    calls = contenders(args)
    tokens = {name: call() for name, call in calls.items()}  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.rounds):
        for name, call in calls.items():
            before = time.process_time()
            call()
            seconds[name].append(time.process_time() - before)
    rate = {name: tokens[name].size / statistics.median(seconds[name]) for name in calls}
    print(f"{args.size}, context {args.context}: {args.tokens} new tokens, tokens per CPU-second on one core")
    for name in calls:
        same = np.mean(tokens[name][0] == tokens["cache, 1"][0])
        print(f"{name:>12} {rate[name]:>10,.0f}   {same:.0%} of its tokens those of the first row")
    one = rate["cache, 1"]
    print(f"cache / no cache {one / rate['no cache, 1']:.1f}")
    if "HF, 1" in rate:
        print(f"cache / HF generate {one / rate['HF, 1']:.1f}")
    print(f"{MANY} prompts / 1 prompt {rate[f'cache, {MANY}'] / one:.2f}")


if __name__ == "__main__":
    main()
