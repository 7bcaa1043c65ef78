"""The report as a reader gets it: in a real headless Chromium, with the network cut off."""

import json
import pathlib
import shutil

import pytest
import synthetic

from analysis import report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> pathlib.Path:
    """A ladder with a diverged member, its largest rung predicted, trained and scored."""
    from analysis import predict

    root = tmp_path_factory.mktemp("report") / "ladder"
    synthetic.write_sweep(root, trained=synthetic.SIZES[:5], diverged=("causal-50K-40x",))
    assert predict.main(["--runs", str(root), "--record", "--draws", "100"]) == 0
    synthetic.write_sweep(root, diverged=("causal-50K-40x",))
    assert predict.main(["--runs", str(root), "--score", "--draws", "100"]) == 0
    assert report.main(["--runs", str(root), "--draws", "100"]) == 0
    return root


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium that can reach nothing, and keeps what its console says."""
    if not CHROMIUM or not DRIVER:
        pytest.skip("no chromium and chromedriver on PATH: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def collinear(tmp_path_factory) -> pathlib.Path:
    """The report of anybody's table in which tokens are 20 times the parameters throughout."""
    import numpy as np

    from analysis import laws

    root = tmp_path_factory.mktemp("collinear")
    n = np.geomspace(1e7, 1e9, 10)
    loss = laws.CHINCHILLA.loss({"E": 1.7, "A": 400.0, "B": 410.0, "alpha": 0.34, "beta": 0.28}, n, 20 * n)
    loss *= np.exp(0.003 * np.random.default_rng(0).standard_normal(10))
    rows = "".join(f"{a:.0f},{20 * a:.0f},{v:.6f}\n" for a, v in zip(n, loss, strict=True))
    (root / "mine.csv").write_text("N,D,loss\n" + rows)
    assert report.main(["--csv", str(root / "mine.csv"), "--out", str(root), "--draws", "100"]) == 0
    return root


def _open(browser, sweep: pathlib.Path, width: int):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.set_window_size(width, 900)
    browser.get(f"file://{sweep / report.NAME}")
    done = "return [...document.querySelectorAll('.chart')].every(c => c.dataset.drawn === 'yes')"
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(done))


@pytest.mark.parametrize("width", [1280, 390])
def test_charts_render_without_complaint(browser, sweep, width):
    """Fails when a chart is not drawn, anything is said on the console, or a phone has to scroll sideways."""
    _open(browser, sweep, width)
    charts = browser.execute_script(
        "return [...document.querySelectorAll('.chart')].map(c => [c.id, c.querySelectorAll('.main-svg').length,"
        " c.querySelectorAll('.scatterlayer .trace').length, c.getBoundingClientRect().width])"
    )
    assert len(charts) >= 3
    for name, drawings, traces, wide in charts:
        assert drawings and traces and 200 < wide <= width, name
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= browser.execute_script("return innerWidth")


def test_hover_tells_of_a_run(browser, sweep):
    """Fails when points carry no label, so that hovering shows bare coordinates or nothing."""
    _open(browser, sweep, 1280)
    said = browser.execute_script(
        "const c = document.getElementById('chart-residuals');"
        "Plotly.Fx.hover(c, [{curveNumber: c.data.findIndex(d => d.mode === 'markers'), pointNumber: 0}]);"
        "return c.querySelector('.hoverlayer').textContent"
    )
    assert "tokens/param" in said and "% off the law" in said


def test_the_table_sorts_and_tells_why_runs_stay_out(browser, sweep):
    """Fails when a heading does not sort by number (9e9 after 1e10), or an excluded run has no reason beside it."""
    _open(browser, sweep, 1280)
    table = browser.find_element("css selector", "#runs table.sortable")
    heads = [h.text for h in table.find_elements("css selector", "thead th")]

    def column(name: str) -> list[str]:
        at = heads.index(name) + 1
        return [c.get_attribute("data-value") for c in table.find_elements("css selector", f"tbody td:nth-child({at})")]

    button = table.find_elements("css selector", "thead button")[heads.index("D")]
    button.click()
    up = [float(v) for v in column("D")]
    assert up == sorted(up) and len(set(up)) > 3
    button.click()
    assert [float(v) for v in column("D")] == sorted(up, reverse=True)
    reasons = {
        row.find_elements("css selector", "td")[0].text: row.find_elements("css selector", "td")[-1].text
        for row in table.find_elements("css selector", "tr.excluded")
    }
    assert reasons["causal-50K-40x"].startswith("diverged")
    assert reasons["causal-50K-trunk"] == "not annealed"


def test_headings_are_shown_in_full(browser, sweep):
    """Fails when a sortable heading is wider than its cell, which cuts it."""
    _open(browser, sweep, 1280)
    cut = "return [...document.querySelectorAll('th button')].filter(b => b.getBoundingClientRect().right >"
    assert browser.execute_script(f"{cut} b.parentElement.getBoundingClientRect().right + 1).length") == 0


def test_dragging_zooms_and_a_double_click_goes_back(browser, sweep):
    """Fails when a drag over a chart leaves its axis as it was, or nothing brings it back."""
    from selenium.webdriver import ActionChains

    _open(browser, sweep, 1280)
    plot = browser.find_element("css selector", "#chart-residuals .nsewdrag")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)

    def ends() -> list[float]:
        return browser.execute_script("return document.getElementById('chart-residuals')._fullLayout.xaxis.range.slice()")

    def wait(done) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(browser, 10).until(lambda b: done())

    before = ends()
    ActionChains(browser).move_to_element_with_offset(plot, -150, 0).click_and_hold().move_by_offset(300, 0).release().perform()
    wait(lambda: ends()[0] > before[0] and ends()[1] < before[1])
    ActionChains(browser).double_click(plot).perform()
    wait(lambda: ends() == before)


def test_paper_shows_no_buttons(browser, sweep):
    """Fails when the charts' buttons or the links between sections are printed, or a table is cut at the paper's edge."""
    _open(browser, sweep, 794)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        hidden = "return [...document.querySelectorAll('.modebar, nav, button.copy')].every(e => !e.getClientRects().length)"
        assert browser.execute_script(hidden)
        cut = "return [...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > innerWidth).length"
        assert browser.execute_script(cut) == 0
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_table_that_determines_nothing_quotes_nothing(browser, collinear):
    """Fails when collinear rows get parameters, exponents, optima or conventions quoted, or their charts fail to draw."""
    _open(browser, collinear, 390)
    assert browser.get_log("browser") == []
    facts = json.loads((collinear / "report.json").read_text())
    assert not facts["law"]["quoted"] and set(facts["law"]["params"].values()) == {None}
    assert set(facts["law"]["intervals"].values()) == {None}
    found = (facts["approaches"], facts["conventions"], facts["profiles"], facts["deltas"], facts["standard_errors"])
    assert found == (None, None, {}, {}, {})
    said = browser.find_element("id", "law").text
    assert "not quoted" in said and "tokens grow in step with parameters" in said and "may lie anywhere" not in said
    assert (
        not browser.find_elements("id", "allocation")
        and "none are quoted" in browser.find_element("css selector", ".lead").text
    )


def test_the_loss_of_the_best_predictor_stands_beside_e(tmp_path):
    """Fails when runs that know their language's loss do not say it, or E is not held against it."""
    from scaling import runs

    root = synthetic.write_sweep(tmp_path / "known", curves=False)
    for plan in root.glob(f"*/{runs.PLAN}"):
        runs.write_json(plan, json.loads(plan.read_text()) | {"ideal_loss": 1.01, "ideal_val_loss": synthetic.TRUTH["E"]})
    assert report.main(["--runs", str(root), "--draws", "100", "--law", "chinchilla"]) == 0
    page = (root / report.NAME).read_text()
    assert "true 1.0000 (the best predictor of this language): inside its interval" in page
    assert "1 nats per token on the validation windows; 1.01 nats per token expected" in page


def test_the_references_can_be_copied(browser, sweep):
    """Fails when the button leaves the clipboard empty or says nothing."""
    _open(browser, sweep, 1280)
    button = browser.find_element("css selector", "button.copy")
    button.click()
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 10).until(lambda b: button.text == "Copied")
    assert "hoffmann2022training" in browser.find_element("id", "bibtex").text


def test_the_page_needs_nothing_else(sweep):
    """Fails when the page refers to a file or an address, or its numbers are not those of plot_scaling."""
    page = (sweep / report.NAME).read_text()
    head = page[: page.index("<script>")]
    assert "src=" not in head and 'href="http' not in head and "@import" not in head
    facts = json.loads(page.split('id="facts">')[1].split("</script>")[0])
    assert facts["chinchilla"]["form"] == "chinchilla" and facts["law"] and len(facts["rows"]) == 24
    assert "3 of 3 predictions on record" in page
