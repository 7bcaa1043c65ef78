"""The generated language: its text, its entropies and the loss that no model can beat, against enumeration and filtering."""

import itertools
import json
import math

import numpy as np
import pytest
from training import Trainer

from scaling import corpus, data, markov, runs, sweep
from scaling.markov import Language, Spec, make_language, sample
from scaling.store import StoreError, mean_entropy, open_store

TINY = [Spec(1, 3, 0.4, 0.0), Spec(2, 2, 0.5, 0.0, seed=1), Spec(3, 2, 0.3, 0.0, seed=2), Spec(2, 3, 0.4, 1.0, seed=4)]
SMALL = Spec(order=2, symbols=6, concentration=0.3, zipf=0.0, seed=3, tokens=40_000)


def transitions(language: Language) -> np.ndarray:
    """(V^k, V^k) of contexts: the source's rows as an ordinary Markov chain, entry by entry."""
    k, v = language.order, language.symbols
    contexts = list(itertools.product(range(v), repeat=k))
    out = np.zeros((len(contexts), len(contexts)))
    for i, context in enumerate(contexts):
        for x in range(v):
            out[i, contexts.index((*context[1:], x))] += language.rows[i, x]
    return out


def by_eigenvector(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eig(matrix.T)
    one = np.real(vectors[:, np.argmax(np.real(values))])
    return one / one.sum()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> corpus.TokenStore:
    return markov.build(SMALL, tmp_path_factory.mktemp("markov") / "small", context=16)


@pytest.mark.parametrize("spec", [*TINY, SMALL], ids=str)
def test_the_source_is_stationary(spec):
    # fails when contexts are numbered in one order and moved on in another, or the iteration stops early
    language = make_language(spec)
    ranks = np.arange(1, spec.symbols + 1) ** -spec.zipf
    assert np.allclose(language.rows.sum(axis=1), 1)
    assert (language.rows >= markov.MIXING * ranks / ranks.sum() * (1 - 1e-12)).all()
    expected = by_eigenvector(transitions(language))
    assert np.abs(language.stationary - expected).max() < 1e-12
    assert np.abs(expected @ transitions(language) - language.stationary).max() < 1e-13


@pytest.mark.parametrize("context", [1, 2, 5])
@pytest.mark.parametrize("spec", TINY, ids=str)
def test_ideal_loss_by_enumeration(spec, context):
    """Every text of k + T + 1 symbols, the first k unseen: what the best predictor of a window, which knows the source but
    nothing before the window, loses on its T targets."""
    # fails when the first targets are priced as if the state were known, the first symbol counts as a target, or the window
    # is taken to begin where the source began
    language = make_language(spec)
    k, v = language.order, language.symbols
    stationary = by_eigenvector(transitions(language))
    contexts = list(itertools.product(range(v), repeat=k))
    window_p: dict[tuple[int, ...], float] = {}
    for start, *rest in itertools.product(range(len(contexts)), *[range(v)] * (context + 1)):
        p, text = stationary[start], [*contexts[start]]
        for x in rest:
            p *= language.rows[contexts.index(tuple(text[-k:])), x]
            text.append(x)
        window = tuple(text[k:])
        window_p[window] = window_p.get(window, 0.0) + p
    assert math.isclose(sum(window_p.values()), 1)
    prefix_p: dict[tuple[int, ...], float] = {}
    for window, p in window_p.items():
        for t in range(1, context + 2):
            prefix_p[window[:t]] = prefix_p.get(window[:t], 0.0) + p
    loss = -sum(
        p * math.log(prefix_p[window[: t + 1]] / prefix_p[window[:t]])
        for window, p in window_p.items()
        for t in range(1, context + 1)
    )
    assert math.isclose(mean_entropy(language.entropies(), context), loss / context, rel_tol=1e-12)


def forward_nats(language: Language, windows: np.ndarray) -> np.ndarray:
    """Of windows (n, T + 1), by the forward algorithm: a belief over all contexts, from the stationary one on."""
    step, v = transitions(language), language.symbols
    last = np.arange(len(step)) % v  # the newest symbol of each context
    belief = np.tile(by_eigenvector(step), (len(windows), 1))
    nats = np.zeros(len(windows))
    for t in range(windows.shape[1]):
        joint = (belief @ step) * (last[None, :] == windows[:, t : t + 1])
        p = joint.sum(axis=1)
        nats -= np.log(p) if t else 0
        belief = joint / p[:, None]
    return nats


def test_ideal_loss_by_simulation(store):
    # fails when the store's text is not of the language, windows are cut otherwise, or the closed form is off by 1 %
    language = markov.language_of(store)
    nats = []
    for windows in (data.validation(store, 16, 10**9), data.window_view(store.tokens("train"), 16)):
        symbols = markov.symbols_of(windows)
        assert symbols.min() == 0 and symbols.max() == SMALL.symbols - 1
        filtered = forward_nats(language, symbols)
        assert np.abs(filtered - language.window_nats(symbols)).max() < 1e-9
        nats.append(filtered / 16)
    whole = np.concatenate(nats)
    sigma = whole.std() / math.sqrt(len(whole))
    assert len(whole) > 14_000 and sigma < 0.004 * store.ideal_loss(16)
    assert abs(whole.mean() - store.ideal_loss(16)) < 4 * sigma
    # with fewer symbols known the loss is higher: the windows' beginning matters by far more than the sampling error
    assert store.ideal_loss(1) > store.ideal_loss(16) + 5 * sigma > language.entropies()[-1] + 10 * sigma


def test_samples_follow_the_rows():
    # fails when a symbol is drawn from another context's row, or the stream starts elsewhere than at rest
    language = make_language(TINY[1])
    n = 200_000
    text = sample(language, n, np.random.default_rng(0))
    triples = np.bincount(text[:-2] * 4 + text[1:-1] * 2 + text[2:], minlength=8) / (n - 2)
    expected = language.joint(2).ravel()
    assert np.abs(triples - expected).max() < 6 * math.sqrt(0.25 / n) * 3  # counts of neighbours are correlated
    first = [int(sample(language, 1, np.random.default_rng(seed))[0]) for seed in range(3000)]
    assert abs(np.mean(first) - language.joint(0)[0, 1]) < 4 * 0.5 / math.sqrt(3000)


def test_languages_are_pinned():
    # fails when an update draws another language from the same spec: stores could then not be made again
    assert make_language(Spec()).entropies() == pytest.approx((2.7370964183, 2.0406387301, 1.7284278900), abs=1e-9)
    assert make_language(Spec(zipf=0.0)).entropies() == pytest.approx((3.4145029149, 2.4031258434, 1.9517078842), abs=1e-9)


def test_dials(tmp_path):
    # fails when a dial does nothing, or turns the wrong way
    h = {c: make_language(Spec(2, 8, c)).entropies() for c in (0.05, 0.5, 100.0)}
    assert h[0.05][-1] < h[0.5][-1] < h[100.0][-1] <= math.log(8)
    for entropies in h.values():
        assert len(entropies) == 3 and list(entropies) == sorted(entropies, reverse=True)  # knowing more never hurts
    assert make_language(Spec(2, 8, 0.5, seed=1)).entropies() != h[0.5]


def test_frequencies_follow_zipf():
    # fails when the exponent does nothing, or symbols far from any context follow another law than that of their rank
    for zipf in (0.0, 1.0, 1.5):
        marginal = make_language(Spec(2, 32, 1000.0, zipf=zipf)).joint(0)[0]  # rows so flat that all are nearly the root's
        ranks = np.arange(1, 33) ** -zipf
        assert np.abs(marginal / (ranks / ranks.sum()) - 1).max() < 0.15
    zipfian = make_language(Spec(2, 32, 0.3, zipf=1.0)).joint(0)[0]
    assert zipfian[:8].sum() > 0.5 > 2 * zipfian[-8:].sum()


def test_a_store_from_before_there_were_frequencies(store):
    # fails when a store whose recipe has no Zipf exponent is refused, or read as another language
    assert "zipf" not in store.source and markov.language_of(store).entropies() == pytest.approx(store.entropies, abs=1e-12)
    assert markov.build(SMALL, store.path, context=16).fingerprint == store.fingerprint


def test_the_store(store, tmp_path, capsys):
    # fails when the ideal loss of the file is for another window length, the text depends on anything but the spec, or
    # splits share a text
    content = json.loads((store.path / "store.json").read_text())
    assert content["ideal_loss"] == store.ideal_loss(16) == pytest.approx(store.ideal_loss(10**6), rel=0.1)
    assert content["ideal_context"] == 16 and store.ideal_loss(10**6) == pytest.approx(store.entropies[-1], abs=1e-5)
    assert store.splits["train"].tokens == 40_000 and store.vocab == "bytes" and store.split_by == "streams"
    words = ["--order", "2", "--symbols", "6", "--zipf", "0", "--seed", "3", "--tokens", "4e4", "--context", "16"]
    assert markov.main([*words, "--out", str(tmp_path / "again")]) == 0
    assert f"no model can do better than {store.ideal_loss(16):.6f}" in capsys.readouterr().out
    assert open_store(tmp_path / "again").fingerprint == store.fingerprint
    train, valid = store.tokens("train"), store.tokens("valid")
    assert (train[:1000] != valid[:1000]).mean() > 0.5
    text = store.tokenizer.decode(train[:100])
    assert len(text) == 100 and text.isascii() and text.isprintable()
    # a longer text begins with the shorter one, so that a ladder can be extended
    assert markov.main([*words[:-4], "--tokens", "5e4", "--out", str(tmp_path / "longer")]) == 0
    assert (open_store(tmp_path / "longer").tokens("train")[:40_000] == train).all()


BAD = {
    "order": (["--order", "0"], "--order 0: must be at least 1"),
    "symbols": (["--symbols", "95"], "--symbols 95: must be from 2 to 94"),
    "size": (["--order", "5"], "--order 5 --symbols 32: a table of 1,073,741,824 entries, at most 4,194,304; use --order 3"),
    "concentration": (["--concentration", "0"], "--concentration 0: must be from 0.01"),
    "zipf": (["--zipf", "-1"], "--zipf -1: must be from 0"),
    "seed": (["--seed", "-1"], "--seed -1: must not be negative"),
    "tokens": (["--tokens", "10"], "--tokens 10: must be at least 1,000"),
    "word": (["--tokens", "abc"], "--tokens: abc: must be a whole number, such as 4e6"),
    "slow": (
        ["--order", "10", "--symbols", "2", "--zipf", "0"],
        "forgets its beginning too slowly (not at rest after 5,000 steps)",
    ),
    "context": (["--context", "0"], "--context 0: must be at least 1"),
    "another": (["--seed", "9"], "holds a store of another source"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(tmp_path, capsys, store, name):
    # fails when a spec that cannot be is a traceback, hangs, leaves a folder, or replaces another store
    words, message = BAD[name]
    out = store.path if name == "another" else tmp_path / "out"
    assert markov.main([*words, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert name == "another" or not out.exists()
    assert open_store(store.path).fingerprint == store.fingerprint


def test_other_stores_have_no_ideal_loss(text_store):
    # fails when a loss is claimed to be known of text of which nobody knows it
    assert text_store.ideal_loss(16) is None and text_store.entropies == ()
    with pytest.raises(StoreError, match=r"no generated language.*scaling\.markov"):
        markov.language_of(text_store)


def test_the_default_language_is_made_when_it_is_missing(tmp_path, monkeypatch):
    # fails when the ladder of configs/known_entropy.py needs a second command, or a wrong folder is filled
    monkeypatch.setattr(markov, "Spec", lambda: SMALL)
    assert corpus.is_default("tokens/markov") and not corpus.is_default("tokens/markov-2")
    assert corpus.load_store(tmp_path / "markov").source["kind"] == "markov"
    with pytest.raises(StoreError, match=r"set data\.vocab='bytes'"):
        corpus.load_store(tmp_path / "markov", "512")


def test_the_ladder_fits_its_language():
    # fails when known_entropy.py asks for more text than its language has, or sizes and budgets no longer make a grid
    config, _ = sweep.load_config("known_entropy.py")
    context = config.model.context
    ladder = sweep.load("known_entropy.py", stream_tokens=(Spec().tokens - 1) // context * context)
    rows = {(m.plan.n_params["non_embedding"], m.plan.tokens, m.config.seed) for m in ladder.members if m.plan.annealed}
    assert len(rows) == 40 == math.prod(len(set(column)) for column in zip(*rows, strict=True))
    assert {m.config.data.sources for m in ladder.members} == {((markov.OUT, 1.0),)}


def test_a_model_approaches_the_ideal_loss_and_never_undercuts_it(trainer: Trainer, tmp_path):
    # fails when the ideal loss is too high (it is undercut) or far too low, plan.json lacks it or has that of other windows, or
    # loss is measured otherwise
    store = markov.build(Spec(order=1, symbols=5, concentration=0.5, tokens=600_000), tmp_path / "store")
    trainer.run(
        tmp_path / "run", data__store=store.path, data__val_windows=512, data__epochs=1, budget="4000 steps", evals=1,
    )  # fmt: skip
    done, plan = (runs.read_json(tmp_path / "run" / name) or {} for name in (runs.DONE, runs.PLAN))
    windows = markov.symbols_of(data.validation(store, 16, 512))
    best = forward_nats(markov.language_of(store), windows) / 16  # on the very windows: their sampling error cancels
    assert plan["ideal_loss"] == store.ideal_loss(16) and math.isclose(plan["ideal_val_loss"], best.mean(), rel_tol=1e-9)
    assert abs(best.mean() - plan["ideal_loss"]) < 4 * done["val_loss_stderr"]
    # A model that beats the source by x nats on a text of the source: at most once in e^x texts, as likelihood ratios go.
    assert (done["val_loss"] - best.mean()) * windows[:, 1:].size > -20
    assert done["val_loss"] - best.mean() < 0.01
