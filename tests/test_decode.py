"""Decoding: with the cache as without it, each text as if it were alone, draws by the stated distribution, ends where told."""

import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import written
from oracles import huggingface, require

from scaling import config, decode, fast, members, model, runs, tokenizer

REPO = pathlib.Path(__file__).parents[1]
BYTES = tokenizer.byte_tokenizer()
PROMPTS = ["a", "Some longer one. ", "x = 3"]
SHAPE = {"vocab_size": 260, "context": 40, "depth": 1, "width": 24, "heads": 4, "kv_heads": 2, "head_size": 6, "ff": 16}
RANDOM = config.model_config(**SHAPE, zero_init_q=False)
RECITER = config.model_config(**SHAPE | {"width": 64, "head_size": 16, "context": 64}, positions="learned")

forward = jax.jit(model.apply, static_argnums=0)
prefill = jax.jit(model.prefill, static_argnums=(0, 3), static_argnames="forms")
extend = jax.jit(model.extend, static_argnums=0, static_argnames="forms")


@functools.cache
def random_params():
    """Of ``RANDOM``, which never ends a text."""
    params = tiny.wide_params(RANDOM)
    params["head"][:, tokenizer.EOS] = 0.0
    return params


def reciting(ids):
    """Parameters of ``RECITER`` which after position t say ``ids[t]``, whatever was read: positions are one-hot, and the head
    names a token for each."""
    params = jax.tree.map(np.zeros_like, tiny.wide_params(RECITER))
    params["final_norm"]["gain"] += 1.0
    params["positions"] = np.eye(RECITER.context, RECITER.width, dtype=np.float32)
    params["head"][np.arange(len(ids)), ids] = 9.0
    return params


def say(text: str, prompt: str = "p", words=BYTES, **rule):
    """What a model that recites ``text`` after ``prompt``, and then ends, makes of it."""
    ids = [*[9] * (len(words.encode(prompt)) - 1), *words.encode(text), tokenizer.EOS]
    return decode.generate(RECITER, reciting(ids), words, [prompt], decode.Rule(**rule))[0]


# -------------------------------------------------------------------------------------------- the cache


@pytest.mark.parametrize(
    ("fields", "forms"),
    [
        ({}, fast.CPU),
        ({"positions": "learned", "norm": "layernorm", "norm_bias": True, "bias": True, "activation": "gelu", "tied_head": True,
          "kv_heads": 4, "layers": "scan"}, model.PLAIN),
        ({"positions": "sinusoidal", "norm_position": "post", "remat": "full", "layers": "scan"}, model.PLAIN),
        ({"positions": "none", "qk_norm": True, "kv_heads": 1, "dtype": "bfloat16", "layers": "scan"}, model.PLAIN),
    ],
)  # fmt: skip
def test_logits_from_the_cache_are_those_of_the_whole_text(fields, forms):
    """Fails when positions count padding or slots, padding is attended to, a layer reads another's cache, heads of a group mix,
    or a beginning read once is not what every row goes on from."""
    c = tiny.model_config(**fields)
    params, tokens_BT = tiny.wide_params(c), tiny.tokens(3, c.context, c.vocab_size)
    whole = np.asarray(forward(c, params, tokens_BT))
    near = 1e-5 if c.dtype == "float32" else 0.2
    assert whole.std() > 0.3, "logits too small to show a difference"

    lengths = np.array([3, 5, 4])
    logits, cache = prefill(c, params, tokens_BT[:, :5], 11, real_BT=np.arange(5) < lengths[:, None], forms=forms)
    assert max(np.abs(logits[b, :n] - whole[b, :n]).max() for b, n in enumerate(lengths)) < near
    for _ in range(4):
        logits, cache = extend(c, params, tokens_BT[np.arange(3), lengths][:, None], cache, forms=forms)
        assert np.abs(logits[:, 0] - whole[np.arange(3), lengths]).max() < near
        lengths = lengths + 1
    assert cache.used == 9 and (cache.filled_BS.sum(axis=1) == lengths).all()

    tokens_BT[:, :6] = tokens_BT[0, :6]
    whole = np.asarray(forward(c, params, tokens_BT))
    _, beginning = prefill(c, params, tokens_BT[:1, :6], 6, forms=forms)
    cache = model.resized(model.rows_of(beginning, np.zeros(3, int)), 11)
    real = np.array([[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 0, 0]], bool)
    new = np.zeros((3, 4), np.int32)
    for b, row in enumerate(real):
        new[b, row] = tokens_BT[b, 6 : 6 + row.sum()]
    logits, cache = extend(c, params, new, cache, real_BT=real, wanted_BN=np.array([[3], [2], [0]]), forms=forms)
    last = np.array([9, 7, 6])
    assert np.abs(logits[:, 0] - whole[np.arange(3), last]).max() < near
    logits, _ = extend(c, params, tokens_BT[np.arange(3), last + 1][:, None], cache, forms=forms)
    assert np.abs(logits[:, 0] - whole[np.arange(3), last + 1]).max() < near


# ------------------------------------------------------------------------------------- greedy, and batch mates


def without_cache(prompt: str) -> list[int]:
    """Greedy ids until the context is full, each from the logits of all before it."""
    ids = list(BYTES.encode(prompt))
    begun = len(ids)
    while len(ids) < RANDOM.context:
        whole = np.pad(ids, (0, RANDOM.context - len(ids)))[None]
        ids.append(int(forward(RANDOM, random_params(), whole)[0, len(ids) - 1].argmax()))
    return ids[begun:]


def test_greedy_is_token_for_token_that_without_a_cache():
    """Fails when a cache that grew lost something, a row's positions depend on its batch mates, or the context is not used."""
    rule = decode.Rule(max_tokens=22)
    together = decode.generate(RANDOM, random_params(), BYTES, PROMPTS, rule)
    for prompt, out in zip(PROMPTS, together, strict=True):
        alone = decode.generate(RANDOM, random_params(), BYTES, [prompt], rule)[0]
        assert out.ids.tolist() == alone.ids.tolist() == without_cache(prompt)[:22]
        assert out.text == alone.text == BYTES.decode(out.ids) and out.ended == "length"
    full = decode.generate(RANDOM, random_params(), BYTES, [PROMPTS[1]])[0]
    assert full.ids.tolist() == without_cache(PROMPTS[1])


def test_greedy_is_that_of_transformers(tmp_path):
    """Fails when cached positions, scale or masks differ from another implementation's generate."""
    torch = require("torch")
    require("safetensors")
    from scaling import hf

    hf.write(tmp_path / "model", RANDOM, random_params())
    ids = torch.from_numpy(BYTES.encode(PROMPTS[1])).long()[None]
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    theirs = huggingface.open_folder(tmp_path / "model").generate(ids, **options)[0, ids.shape[1] :]
    assert theirs.tolist() == without_cache(PROMPTS[1])[:20]


# -------------------------------------------------------------------------------------------- drawing


def oracle(logits, temperature, top_k, top_p):
    """The distribution that ``Rule`` describes, token by token, in float64."""
    p = np.exp((logits - logits.max()) / temperature)
    order = np.argsort(-p)
    kept = order[: top_k or len(p)]
    share = p[kept] / p[kept].sum()
    kept = kept[: int(np.searchsorted(np.cumsum(share), top_p - 1e-9) + 1)]
    out = np.zeros_like(p)
    out[kept] = p[kept] / p[kept].sum()
    return out


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, None, 1.0), (0.5, None, 1.0), (2.0, 4, 1.0), (1.0, None, 0.6), (0.7, 5, 0.8)]
)
def test_draws_follow_the_stated_distribution(temperature, top_k, top_p):
    """Fails when a filter keeps one token too many or too few, filters before the temperature, or draws are not independent."""
    logits = np.random.default_rng(1).normal(0, 1.5, 9).astype(np.float32)
    expected = oracle(logits.astype(np.float64), temperature, top_k, top_p)
    knobs = {"temperature": np.float32(temperature)} | ({"top_p": np.float32(top_p)} if top_p < 1 else {})
    found = jax.nn.softmax(decode.filtered(jnp.asarray(logits[None]), temperature, top_k, knobs.get("top_p")))[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    n = 4000
    keys = jax.vmap(jax.random.key)(np.arange(n, dtype=np.uint32))
    drawn = decode.chosen(jnp.broadcast_to(logits, (n, 9)), keys, jnp.int32(3), knobs, top_k)
    counts = np.bincount(drawn, minlength=9)
    assert (counts[expected == 0] == 0).all()
    assert (np.abs(counts - n * expected) < 5 * np.sqrt(n * expected * (1 - expected)) + 1e-9).all()


def test_a_sample_depends_on_its_seed_alone():
    """Fails when the key of a row is that of its place in the batch, or the same for every token."""
    rule = decode.Rule(max_tokens=22, temperature=1.0, top_k=50, top_p=0.99)
    draw = functools.partial(decode.generate, RANDOM, random_params(), BYTES, rule=rule)
    first = draw(PROMPTS, seeds=[7, 8, 9])
    again = draw([PROMPTS[2], PROMPTS[0], PROMPTS[2]], seeds=[9, 7, 10])
    assert again[0].ids.tolist() == first[2].ids.tolist() and again[1].ids.tolist() == first[0].ids.tolist()
    assert again[2].ids.tolist() != again[0].ids.tolist()
    assert len(set(again[0].ids.tolist())) > 5


# ------------------------------------------------------------------------------------------- ends and pieces


def test_a_text_ends_at_its_end_at_a_stop_string_or_at_its_length():
    """Fails when a stop string is kept, found only at the end of a token or a round, or the later of two counts."""
    text = "one two, three\n\nfour five, six seven eight nine"
    assert say(text) == (text, pytest.approx([*BYTES.encode(text), tokenizer.EOS]), "eos")
    out = say(text, stop=("\n\n", "eight"))
    assert (out.text, out.ended, len(out.ids)) == ("one two, three", "stop", 16)
    assert say(text, stop=("six seven", "five,")).text == "one two, three\n\nfour "
    assert say(text, stop=("one",)).text == ""
    assert say(text, stop=("ninety",)).text == text
    out = say(text, max_tokens=5)
    assert (out.text, out.ended) == ("one t", "length")


def test_a_stop_string_across_the_borders_of_bpe_tokens():
    """Fails when stop strings are compared token by token."""
    text = "the loss of a model falls with its size"
    words = tokenizer.train_bpe([f"{text} and data\n" * 30], 300)
    c = config.model_config(**SHAPE | {"width": 64, "head_size": 16, "context": 64, "vocab_size": 300}, positions="learned")
    ids = words.encode(text).tolist()
    pieces = [words.decode([i]) for i in ids]
    assert len(pieces) < len(text) / 2, "the vocabulary has no long tokens"
    stop = pieces[2][-1] + pieces[3][:1]  # begins in one token and ends in the next
    params = jax.tree.map(np.zeros_like, tiny.wide_params(c))
    params["final_norm"]["gain"] += 1.0
    params["positions"] = np.eye(c.context, c.width, dtype=np.float32)
    params["head"][np.arange(len(ids)), ids] = 9.0
    prompt = pieces[0]
    out = decode.generate(c, params, words, [prompt], decode.Rule(stop=(stop,), max_tokens=len(ids)))[0]
    assert out.text == text[: text.index(stop)] and len(out.ids) == 4


def test_pieces_join_to_the_whole_and_are_whole_characters():
    """Fails when a character is cut in two, a piece shows what turns out to begin a stop string, or the rest is not shown."""
    text = "naïve – 雪☃ 🎉 und so weiter STO nicht STOP"
    ids = [*BYTES.encode(text), tokenizer.EOS]
    for rule in (decode.Rule(), decode.Rule(stop=("STOP",)), decode.Rule(max_tokens=11), decode.Rule(stop=("🎉",))):
        pieces = list(decode.stream(RECITER, reciting(ids), BYTES, "p", rule))
        whole = say(text, **{f: getattr(rule, f) for f in ("max_tokens", "stop")}).text
        assert "".join(pieces) == whole
        assert len(pieces) > 2 or rule.max_tokens
        assert all("\ufffd" not in piece for piece in pieces) or rule.max_tokens == 11
    assert whole == text[: text.index("🎉")]


def test_the_loop_ends_when_every_row_has():
    """Fails when the compiled loop runs on after the last row's end."""
    params = reciting([*BYTES.encode("abc"), tokenizer.EOS])
    state = decode.start(RECITER, params, BYTES.encode("p")[None], np.array([1], np.int32), 64)
    keys = jax.vmap(jax.random.key)(np.zeros(1, np.uint32))
    _, tokens, made = decode.advance(RECITER, params, state, keys, {}, None, 260, np.int32(30))
    assert made == 4 and tokens[0, :5].tolist() == [*BYTES.encode("abc"), tokenizer.EOS, tokenizer.PAD]


# ------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A member with two checkpoints, as the trainer leaves it."""
    shape = {f"model_{name}": value for name, value in SHAPE.items()}  # RANDOM's, so that its programs are compiled once
    c = tiny.train_config(**shape, model_zero_init_q=False, batch="120 tokens")
    return written.member(tmp_path_factory.mktemp("runs") / "member", c, steps=(5, 20))


def test_a_member_is_opened_where_it_stands(run_dir):
    """Fails when another checkpoint than the one asked for is read, or its place in training is another's."""
    newest, earlier = members.open_member(run_dir), members.open_member(run_dir, 5)
    assert (newest.step, earlier.step) == (20, 5)
    assert newest.tokens == 4 * earlier.tokens and newest.flops == 4 * earlier.flops > 0
    assert tiny.max_difference(newest.params, tiny.wide_params(newest.config.model)) == 0
    assert newest.tokenizer.vocab_size == 260


def test_the_command_prints_prompts_and_what_follows(run_dir, tmp_path, capsys):
    """Fails when a prompt is lost, or streaming prints another text."""
    (tmp_path / "prompts.txt").write_text("b c\n\nd\n")
    words = ["--run", str(run_dir), "--prompt", "aé", "--max-tokens", "9", "--temperature", "1"]
    words += ["--top-k", "50", "--top-p", "0.99"]
    assert decode.main([*words, "--stream"]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith("aé") and len(alone) > 4
    assert decode.main([*words, "--prompts-file", str(tmp_path / "prompts.txt")]) == 0
    printed = capsys.readouterr().out
    assert alone in printed
    assert re.findall(r"^--- (\d): \d+ tokens, ended by \w+\n(\w)", printed, re.M) == [("1", "a"), ("2", "b"), ("3", "d")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run", "nowhere"], "nowhere: no such folder"),
        (["--run", "SWEEP"], "a whole sweep; choose one of its members: small, large"),
        (["--run", "EMPTY"], "no config.json"),
        (["--run", "UNTRAINED"], "no checkpoint yet"),
        (["--run", "BPE"], "tokens/none: no token store"),
        (["--step", "7"], "no checkpoint of step 7; there are [5, 20]"),
        (["--prompt", ""], "prompt: empty"),
        (["--prompt", "x" * 40], "40 tokens, and the context of 40 must hold one more"),
        (["--prompt", "x" * 30, "--max-tokens", "11"], "the context of 40 holds 10"),
        (["--prompts-file", "none.txt"], "none.txt: No such file"),
        ([], "no prompt: give --prompt"),
        (["--prompt", "a", "--temperature", "-1"], "temperature=-1.0: must be"),
        (["--prompt", "a", "--temperature", "warm"], "'warm' must be a number"),
        (["--prompt", "a", "--temperature", "1", "--top-p", "1.5"], "top_p=1.5: must be above 0"),
        (["--prompt", "a", "--temperature", "1", "--top-k", "0"], "top_k=0: must be at least 1"),
        (["--prompt", "a", "--top-k", "3"], "set a temperature"),
        (["--prompt", "a", "--max-tokens", "0"], "max_tokens=0"),
        (["--prompt", "a", "--prompt", "b", "--stream"], "there are 2 prompts"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(run_dir, tmp_path, monkeypatch, capsys, words, said):
    """Fails when one of these ends in a traceback, says something else, or is told after the model was compiled."""
    monkeypatch.chdir(tmp_path)
    if words[:1] == ["--run"] and words[1].isupper():
        root = tmp_path / words[1]
        root.mkdir()
        if words[1] == "SWEEP":
            runs.write_json(root / runs.SWEEP, {"members": [{"id": "small"}, {"id": "large"}]})
        elif words[1] == "UNTRAINED":
            runs.write_json(root / runs.CONFIG, runs.read_json(run_dir / runs.CONFIG))
        elif words[1] == "BPE":
            content = json.loads((run_dir / runs.CONFIG).read_text())
            content["config"]["data"] |= {"vocab": "260", "store": "tokens/none"}
            for name in (runs.CHECKPOINTS, runs.PLAN):
                (root / name).symlink_to(run_dir / name)
            runs.write_json(root / runs.CONFIG, content)
        words = ["--run", str(root), "--prompt", "a"]
    elif words[:1] == ["--run"]:
        words = [*words, "--prompt", "a"]
    else:
        words = ["--run", str(run_dir), *([] if words[:1] != ["--step"] else ["--prompt", "a"]), *words]
    assert decode.main(words) == runs.BAD_CONFIG
    told = capsys.readouterr().err
    assert told.startswith("error: ") and said in told


@pytest.mark.slow
def test_decode_speed_prints_ratios():
    """Fails when the benchmark rots: an import, a signature or a field that it uses has changed."""
    words = ["--size", "13K", "--context", "64", "--tokens", "8", "--rounds", "1", "--no-peer"]
    command = [sys.executable, str(REPO / "benchmarks" / "decode_speed.py"), *words]
    env = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # compiles in a third of the time
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, env=env)
    assert done.returncode == 0, done.stderr
    assert re.search(r"cache / no cache [\d.]+\n16 prompts / 1 prompt [\d.]+\n$", done.stdout)
