"""Text from a trained model: prompts of unequal length together, with a cache of keys and values.

    python -m scaling.decode --run runs/ladder/causal-600K-2.4M --prompt 'The loss '
    python -m scaling.decode --run runs/ladder/causal-600K-2.4M --prompt 'def ' --temperature 0.8 --top-p 0.95 --stream

In a notebook:

    from scaling import decode, members
    m = members.open_member("runs/ladder/causal-600K-2.4M")
    for piece in decode.stream(m.config.model, m.params, m.tokenizer, "The loss ", decode.Rule(temperature=0.8)):
        print(piece, end="")

A prompt and what follows it must fit into the context that the model was trained with: a prompt that leaves no room is an
error, and so is a ``max_tokens`` that goes beyond it; without ``max_tokens`` the text may fill the context.

Tokens are made in one compiled loop of up to ``STRIDE`` steps, which ends early when every row has; between two loops the
host looks for stop strings.  A cache is doubled when it is full, so that attention reads little that is empty.
"""

from __future__ import annotations

import codecs
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from scaling import cli, model
from scaling.config import ConfigError, ModelConfig
from scaling.store import StoreError
from scaling.tokenizer import EOS, PAD, Tokenizer

STRIDE = 32  # tokens between two looks for stop strings
STREAM_STRIDE = 4  # tokens of a piece when somebody watches
LEAST_SLOTS = 64  # of a cache
PROMPT_MULTIPLE = 32  # prompts are filled up to a multiple of it, so that few lengths are compiled


@dataclasses.dataclass(frozen=True)
class Rule:
    """How the next token is chosen and when a text ends.

    Attributes:
      max_tokens: at most so many new tokens; None: as many as the context holds.
      temperature: logits are divided by it; 0 takes the likeliest token.
      top_k: only among the k likeliest tokens (those equal to the k-th included); None: among all.
      top_p: only among the fewest likeliest tokens whose probability, at this temperature and among the top k, reaches it.
      stop: a text ends before the first of these strings, which may begin and end within a token.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    stop: tuple[str, ...] = ()

    def problems(self) -> list[str]:
        """What is wrong with it, in words."""
        out = []
        if self.max_tokens is not None and self.max_tokens < 1:
            out.append(f"max_tokens={self.max_tokens}: must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            out.append(f"temperature={self.temperature}: must be a number from 0 (the likeliest token) upwards")
        if self.top_k is not None and self.top_k < 1:
            out.append(f"top_k={self.top_k}: must be at least 1")
        if not 0 < self.top_p <= 1:
            out.append(f"top_p={self.top_p}: must be above 0 and at most 1")
        if self.temperature == 0 and (self.top_k is not None or self.top_p != 1):
            out.append("top_k and top_p choose among tokens to draw from, and temperature=0 draws none; set a temperature")
        if "" in self.stop:
            out.append("stop='': every text ends there; give at least one character")
        return out


class Completion(NamedTuple):
    """What follows one prompt.

    Attributes:
      text: without the stop string; bytes that are no UTF-8 are U+FFFD.
      ids: (n,) int32, the tokens made, the one that ended the text included.
      ended: by 'eos', by a 'stop' string, or at the 'length' that was asked for or that fits.
    """

    text: str
    ids: np.ndarray
    ended: str


# ------------------------------------------------------------------------------------------- choosing a token


def filtered(logits_BV: Array, temperature: Array | float, top_k: int | None, top_p: Array | float | None) -> Array:
    """Logits at ``temperature``, with -inf at the tokens that ``Rule`` excludes; None filters nothing."""
    logits_BV = logits_BV / temperature
    if top_k is not None and top_k < logits_BV.shape[-1]:
        least_B1 = jax.lax.top_k(logits_BV, top_k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
    if top_p is not None:
        sorted_BV = -jnp.sort(-logits_BV, axis=-1)
        p_BV = jax.nn.softmax(sorted_BV, axis=-1)
        before_BV = jnp.cumsum(p_BV, axis=-1) - p_BV  # of likelier tokens: the one that reaches top_p is still in
        least_B1 = jnp.where(before_BV < top_p, sorted_BV, jnp.inf).min(axis=-1, keepdims=True)
        logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
    return logits_BV


def chosen(logits_BV: Array, keys_B: Array, number: Array, knobs: dict[str, Any], top_k: int | None) -> Array:
    """The next token of each row; the draw depends on the row's key and the token's number alone, not on other rows."""
    if "temperature" not in knobs:
        return logits_BV.argmax(axis=-1).astype(jnp.int32)
    logits_BV = filtered(logits_BV, knobs["temperature"], top_k, knobs.get("top_p"))
    draw = jax.vmap(lambda key, logits_V: jax.random.categorical(jax.random.fold_in(key, number), logits_V))
    return draw(keys_B, logits_BV).astype(jnp.int32)


# ------------------------------------------------------------------------------------------- the compiled programs


class State(NamedTuple):
    """Between two tokens: what was read, and the logits of what comes next."""

    cache: model.Cache
    logits_BV: Array
    done_B: Array
    number: Array  # int32 (): tokens made so far


@functools.partial(jax.jit, static_argnums=(0, 4))
def start(c: ModelConfig, params: Any, tokens_BT: Array, lengths_B: Array, slots: int) -> State:
    """Reads prompts, filled up at the right, into a cache of ``slots`` slots."""
    real_BT = jnp.arange(tokens_BT.shape[1]) < lengths_B[:, None]
    last_B1 = lengths_B[:, None] - 1
    logits_B1V, cache = model.prefill(c, params, tokens_BT, slots, real_BT=real_BT, wanted_BN=last_B1)
    return State(cache, logits_B1V[:, 0], jnp.zeros(len(tokens_BT), bool), jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnums=(0, 5, 6), donate_argnums=2)
def advance(
    c: ModelConfig, params: Any, state: State, keys_B: Array, knobs: dict[str, Any], top_k: int | None, vocab: int, limit: Array
) -> tuple[State, Array, Array]:
    """Makes up to ``limit`` (at most ``STRIDE``) tokens, fewer when all rows are done.

    Args:
      keys_B: a random key of each row.
      knobs: 'temperature' where tokens are drawn, 'top_p' where it excludes any.
      vocab: ids from here on are in no text.

    Returns:
      The state after them, tokens (B, STRIDE), and how many of them were made.
    """

    def more(carry: tuple[State, Array, Array]) -> Array:
        state, _, i = carry
        return (i < limit) & ~state.done_B.all()

    def one(carry: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
        state, made, i = carry
        token_B = chosen(state.logits_BV[:, :vocab], keys_B, state.number, knobs, top_k)
        made = jax.lax.dynamic_update_slice_in_dim(made, token_B[:, None], i, 1)
        logits_B1V, cache = model.extend(c, params, token_B[:, None], state.cache)
        state = State(cache, logits_B1V[:, 0], state.done_B | (token_B == EOS), state.number + 1)
        return state, made, i + 1

    made = jnp.full((len(state.done_B), STRIDE), PAD, jnp.int32)
    return jax.lax.while_loop(more, one, (state, made, jnp.zeros((), jnp.int32)))


@functools.partial(jax.jit, static_argnums=1)
def _grown(state: State, slots: int) -> State:
    return state._replace(cache=model.resized(state.cache, slots))


def _slots(needed: int, context: int) -> int:
    """Of a cache that has room for ``needed`` tokens: a power of two, so that few programs are compiled, and no more than a
    full context takes."""
    return min(max(LEAST_SLOTS, 1 << (needed - 1).bit_length()), context + PROMPT_MULTIPLE)


# ------------------------------------------------------------------------------------------- texts


class _Text:
    """The bytes of one row, up to a stop string, and what of them may be shown already."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]):
        self._tokenizer = tokenizer
        self._stop = [s.encode() for s in stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._shown = 0
        self.bytes, self.ended = b"", ""
        self.ids: list[int] = []

    def add(self, token: int) -> None:
        """Takes one more token, unless the text has ended."""
        if self.ended:
            return
        self.ids.append(token)
        if token == EOS:
            self.ended = "eos"
            return
        before = len(self.bytes)
        self.bytes += self._tokenizer.decode_bytes([token])
        found = [self.bytes.find(s, max(0, before - len(s) + 1)) for s in self._stop]
        if cuts := [at for at in found if at >= 0]:
            self.bytes, self.ended = self.bytes[: min(cuts)], "stop"

    def new(self, last: bool) -> str:
        """Text that was not shown before: whole characters, and nothing that may turn out to begin a stop string."""
        last = last or bool(self.ended)
        end = len(self.bytes) - (0 if last else max((_overlap(self.bytes, s) for s in self._stop), default=0))
        part, self._shown = self.bytes[self._shown : end], max(end, self._shown)
        return self._decoder.decode(part, final=last)


def _overlap(text: bytes, stop: bytes) -> int:
    """How many bytes at the end of ``text`` begin ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def _encoded(
    c: ModelConfig, tokenizer: Tokenizer, prompts: Sequence[str | np.ndarray], rule: Rule
) -> tuple[list[np.ndarray], int]:
    """Ids of each prompt, and how many tokens may be made.

    Raises:
      ConfigError: for whatever cannot be used, all of it together.
    """
    problems = rule.problems() + ([] if prompts else ["no prompt: give at least one"])
    ids = []
    for i, prompt in enumerate(prompts, 1):
        name = "prompt" if len(prompts) == 1 else f"prompt {i}"
        try:
            ids.append(tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
        except UnicodeEncodeError as error:
            problems.append(f"{name}: {error.object[error.start]!r} is a lone surrogate, which no UTF-8 holds; leave it out")
            continue
        if not len(ids[-1]):
            problems.append(f"{name}: empty; give at least one character, such as a newline")
        elif len(ids[-1]) >= c.context:
            problems.append(f"{name}: {len(ids[-1])} tokens, and the context of {c.context} must hold one more; shorten it")
    longest = max(map(len, ids), default=0)
    room = c.context - longest
    if rule.max_tokens is not None and 0 < room < rule.max_tokens:
        problems.append(
            f"max_tokens={rule.max_tokens}: beside a prompt of {longest} tokens the context of {c.context} holds {room}"
        )
    if problems:
        raise ConfigError(problems, "decode")
    return ids, rule.max_tokens or room


def _rounds(
    c: ModelConfig,
    params: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str | np.ndarray],
    rule: Rule,
    seeds: Sequence[int],
    stride: int,
) -> Iterator[list[_Text]]:
    """The texts after each round of ``stride`` tokens, the last one when all have ended."""
    ids, budget = _encoded(c, tokenizer, prompts, rule)
    longest = max(map(len, ids))
    width = min(c.context, -(-longest // PROMPT_MULTIPLE) * PROMPT_MULTIPLE)
    tokens_BT = np.stack([np.pad(x, (0, width - len(x)), constant_values=PAD) for x in ids])
    texts = [_Text(tokenizer, rule.stop) for _ in ids]
    keys_B = jax.vmap(jax.random.key)(np.array(seeds, np.uint32))
    knobs = {"temperature": np.float32(rule.temperature)} if rule.temperature else {}
    knobs |= {"top_p": np.float32(rule.top_p)} if rule.top_p < 1 else {}
    vocab = min(c.vocab_size, tokenizer.vocab_size)
    slots = _slots(width + min(budget, stride), c.context)
    state = start(c, params, tokens_BT, np.array([len(x) for x in ids], np.int32), slots)
    made = 0
    while True:
        if width + made == slots:
            slots = _slots(slots + 1, c.context)
            state = _grown(state, slots)
        limit = min(stride, budget - made, slots - width - made)
        state, tokens, count = advance(c, params, state, keys_B, knobs, rule.top_k, vocab, np.int32(limit))
        for text, row in zip(texts, np.asarray(tokens)[:, : int(count)].tolist(), strict=True):
            for token in row:
                text.add(token)
        made += int(count)
        if made == budget:
            for text in texts:
                text.ended = text.ended or "length"
        yield texts
        if all(text.ended for text in texts):
            return
        state = state._replace(done_B=jnp.array([bool(text.ended) for text in texts]))


def generate(
    c: ModelConfig,
    params: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str | np.ndarray],
    rule: Rule = Rule(),
    seeds: Sequence[int] | None = None,
) -> list[Completion]:
    """What follows each prompt.

    Args:
      params: as ``model.init`` gives them, where the work is to be done.
      prompts: texts, or their ids.
      seeds: one for each prompt, 0, 1, ... by default; a prompt's text depends on its own seed and not on its batch mates.

    Raises:
      ConfigError: for an empty prompt, one that leaves no room in the context, and a rule that means nothing.
    """
    seeds = range(len(prompts)) if seeds is None else seeds
    if len(seeds) != len(prompts):
        raise ConfigError([f"{len(seeds)} seeds for {len(prompts)} prompts; give one for each"], "decode")
    *_, texts = _rounds(c, params, tokenizer, prompts, rule, seeds, STRIDE)  # the last round has all
    return [Completion(t.bytes.decode("utf-8", errors="replace"), np.array(t.ids, np.int32), t.ended) for t in texts]


def stream(
    c: ModelConfig,
    params: Any,
    tokenizer: Tokenizer,
    prompt: str,
    rule: Rule = Rule(),
    seed: int = 0,
) -> Iterator[str]:
    """The text that ``generate`` gives, in pieces as they come: whole characters, and never a part of a stop string.

    Raises:
      ConfigError: as ``generate``.
    """
    for (text,) in _rounds(c, params, tokenizer, [prompt], rule, [seed], STREAM_STRIDE):
        if piece := text.new(last=bool(text.ended)):
            yield piece


# ------------------------------------------------------------------------------------------- the command


def _prompts(given: Sequence[str], file: pathlib.Path | None) -> list[str]:
    if file is None:
        return list(given)
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise ConfigError(
            [f"--prompts-file {file}: {error.strerror}; give a file with a prompt on each line"], "decode"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"--prompts-file {file}: not UTF-8 at byte {error.start}; save it as UTF-8"], "decode") from None
    return [*given, *(line for line in lines if line)]


def main(argv: list[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = cli.Parser(prog="python -m scaling.decode", description="Lets a trained member go on from prompts.")
    parser.add_argument("--run", required=True, type=pathlib.Path, help="a member's folder, or the run_dir of scaling.train")
    parser.add_argument("--step", type=int, help="of the checkpoint; the newest by default")
    parser.add_argument("--prompt", action="append", default=[], help="may be given several times")
    parser.add_argument("--prompts-file", type=pathlib.Path, help="a prompt on each line; empty lines are passed over")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default) takes the likeliest token")
    parser.add_argument("--top-k", type=int, help="draw among the k likeliest tokens")
    parser.add_argument("--top-p", type=float, default=1.0, help="draw among the likeliest tokens of this probability together")
    parser.add_argument("--stop", action="append", default=[], help="end before this string; may be given several times")
    parser.add_argument("--max-tokens", type=int, help="by default as many as the context holds")
    parser.add_argument("--seed", type=int, default=0, help="of the first prompt, the next ones have the next")
    parser.add_argument("--stream", action="store_true", help="print as it comes; one prompt only")

    def run() -> int:
        from scaling import members, train

        args = parser.parse_args(sys.argv[1:] if argv is None else argv)
        prompts = _prompts(args.prompt, args.prompts_file)
        if not 0 <= args.seed < 2**32 - len(prompts):
            parser.error(f"--seed {args.seed}: must be from 0 to 2^32 - 1")
        if args.stream and len(prompts) != 1:
            parser.error(f"--stream: prints one text as it comes, and there are {len(prompts)} prompts")
        rule = Rule(args.max_tokens, args.temperature, args.top_k, args.top_p, tuple(args.stop))
        if problems := rule.problems() + ([] if prompts else ["no prompt: give --prompt or --prompts-file"]):
            raise ConfigError(problems, "decode")
        config, params, tokenizer, *_ = members.open_member(args.run, args.step)
        train.set_up_jax(config.machine)
        params = jax.device_put(params, jax.devices()[0])
        if args.stream:
            print(prompts[0], end="", flush=True)
            for piece in stream(config.model, params, tokenizer, prompts[0], rule, args.seed):
                print(piece, end="", flush=True)
            print()
            return 0
        seeds = range(args.seed, args.seed + len(prompts))
        for i, (prompt, out) in enumerate(
            zip(prompts, generate(config.model, params, tokenizer, prompts, rule, seeds), strict=True), 1
        ):
            if len(prompts) > 1:
                print(f"--- {i}: {len(out.ids)} tokens, ended by {out.ended}")
            print(prompt + out.text, flush=True)
        return 0

    return cli.guarded(run, StoreError)


if __name__ == "__main__":
    sys.exit(main())
