"""The web page: all numbers, in order, for any reader; nothing hostile gets out or in."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import Browser, Page, browser
from records import PUBLISHED, write
from reports import HOSTILE, contrast, write_hostile

from fmbench import report
from fmbench.core.errors import one_line
from fmbench.records.gather import Problem
from fmbench.records.record import RUNNING
from fmbench.records.trials import Objective, Search
from fmbench.report.figure import Figure
from fmbench.report.render.html import FIRST_ROWS, MOST_LISTED
from fmbench.report.table import columns
from fmbench.report.table.columns import READING
from fmbench.report.table.search import SearchPart
from fmbench.report.table.view import View

MADE = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
NETS = ("lenet", "resnet18", "resnet8", "densenet")
ROWS = 330


def text(root: Path, **changes: object) -> str:
    """The page of the runs below a folder, as it would lie in it."""
    return replace(report.build([root]), made=MADE, base=root, **changes).html


def orders(root: Path, key: str) -> list[int]:
    """What the script sorts the rows by: the place of each in the order of a column."""
    written = text(root)
    heads = re.findall(r'data-key="(\w+)"', written)
    return [
        int(row.split()[heads.index(key)]) for row in re.findall(r'data-order="([^"]*)"', written)
    ]


def figure(name: str, of: str) -> Figure:
    svg = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg xmlns="http://www.w3.org/2000/svg" '
        'viewBox="0 0 9 9"><g id="figure_1"><path d="M0 0" style="stroke: #1a1a1a"/></g></svg>'
    )
    return Figure(name, of, f"title of {name}", "A <caption>.", 'An "alt" text', b"", svg)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text outside of scripts and styles."""

    def __init__(self, written: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = False
        self.feed(written)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, content):
        if not self._raw:
            self.text += content

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


# --- what is in it ----------------------------------------------------------------------------


def many(root: Path, number: int = ROWS) -> Path:
    """Rows that differ in what they are sorted by; only a third was validated."""
    for n in range(number):
        write(
            root / "runs" / str(n), model=NETS[n % 4], batch_size=2 ** (n % 9 + 2), epochs=n + 1,
            test_accuracy=0.9 - n / 10_000, best_test_accuracy=0.9 + n / 10_000,
            validation_accuracy=None if n % 3 else 0.9 + n / 10_000,
            overrides=[f"model={NETS[n % 4]}", f"epochs={n + 1}"],
            seconds={"train": 10.0 * (n * 7 % ROWS + 1), "evaluate": 1.0, "total": 9_999.0},
        )  # fmt: skip
    return root


def test_the_report_writes_it_beside_the_others(tmp_path):
    write(tmp_path / "run")
    made = report.build([tmp_path], tmp_path / "out")
    written = (tmp_path / "out" / "benchmark.html").read_text("utf-8")
    assert tmp_path / "out" / "benchmark.html" in made.written
    assert written == made.html
    assert 'href="../run/result.json"' in written


def test_every_cell_and_every_detail_stands_in_the_page(tmp_path):
    write(tmp_path / "a", **PUBLISHED)
    write(tmp_path / "b", seed=1, **PUBLISHED)
    write(
        tmp_path / "c", model="resnet18", deviations=["epochs=3"], reference=PUBLISHED["reference"]
    )
    (section,) = report.build([tmp_path]).sections
    said = Elements(text(tmp_path)).text
    for row in section.rows:
        assert row["command"] in said
        for column in section.columns:
            assert column.title in said
            assert column.cell(row) in said
    assert "seed 1: b config" in said
    assert "Published in a project (best epoch on test)." in said
    assert "Otherwise than published: epochs=3." in said
    assert "512 MB" in said
    assert section.summary in said


def test_what_all_rows_share_is_said_once(tmp_path):
    write(tmp_path / "a", test_loss=0.25)
    write(tmp_path / "b", model="resnet18", test_loss=0.5)
    written = text(tmp_path)
    same = re.search(r'<details class="same">.*?</details>', written, re.DOTALL)[0]
    assert written.count("torch=2.15.0") == same.count("torch=2.15.0") == 1
    assert "test_loss=0.25" in written.replace(same, "")
    assert "validation_accuracy" not in same
    assert "All rows: data fashion_mnist; split standard 60,000/0/10,000; " in written


def test_the_config_is_linked_where_it_is(tmp_path):
    (write(tmp_path / "with") / ".hydra").mkdir()
    (tmp_path / "with" / ".hydra" / "config.yaml").touch()
    write(tmp_path / "without", seed=1)
    links = [link.get("href") for link in Elements(text(tmp_path)).every("a")]
    assert "with/.hydra/config.yaml" in links
    assert {"with/", "without/", "without/result.json"} <= set(links)
    assert "without/.hydra/config.yaml" not in links


def test_runs_that_did_not_complete_and_unreadable_records_are_listed(tmp_path):
    write(tmp_path / "ok")
    write(tmp_path / "bad", status="failed", error="out of memory <b>")
    write(tmp_path / "on", status=RUNNING, model="resnet18")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "result.json").write_text("{")
    said = Elements(text(tmp_path)).text
    assert "out of memory <b>" in said
    assert "still running, or killed" in said
    assert "broken/result.json" in said


def test_long_lists_are_cut_and_say_so(tmp_path):
    problems = [Problem(tmp_path / str(n), "no JSON") for n in range(MOST_LISTED + 7)]
    written = text(tmp_path, problems=problems)
    assert written.count("no JSON") == MOST_LISTED
    assert f"The first {MOST_LISTED} of {len(problems)}" in written


def test_the_terms_are_those_of_the_markdown_page(tmp_path):
    write(tmp_path)
    said = Elements(text(tmp_path)).text
    other = report.build([tmp_path]).markdown.replace("\\", "")
    for term, meaning in READING.items():
        assert f"{term} {meaning}" in said
        assert f"- **{term}** {meaning}" in other


def test_pictures_stand_where_they_belong(tmp_path):
    write(tmp_path / "real")
    write(tmp_path / "drawn", data__name="synthetic")
    figures = (figure("a", "synthetic"), figure("b c", "fashion_mnist"))
    written = text(tmp_path, figures=figures, view=View("model=lenet"))
    order = ["Only runs with model=lenet.", ">Fashion-MNIST</h2>", ">title of b c<"]
    order += [">Synthetic data</h2>", ">title of a<"]
    assert [written.index(one) for one in order] == sorted(written.index(one) for one in order)
    assert written.count("<svg") == 2
    assert "<?xml" not in written
    assert written.count("<!DOCTYPE svg") == 0
    assert 'aria-label="An &quot;alt&quot; text"' in written
    assert 'href="figures/b%20c.svg"' in written
    assert "A &lt;caption&gt;." in written


def test_each_search_has_its_own_picture(tmp_path):
    goal = Objective("validation_accuracy", "maximize")
    parts = tuple(
        SearchPart(Search(name, "TPE", "none", 0, (goal,), ()), {}, f"runs/{name}")
        for name in ("one", "two")
    )
    figures = (figure("search_2", "runs/two"), figure("search", "runs/one"))
    written = text(tmp_path, searches=parts, figures=figures)
    order = ["Search: one</h2>", "title of search<", "Search: two</h2>", "title of search_2<"]
    assert [written.index(one) for one in order] == sorted(written.index(one) for one in order)


# --- what the script sorts --------------------------------------------------------------------


def test_rows_behind_the_first_wait_in_a_template(tmp_path):
    many(tmp_path, FIRST_ROWS + 5)
    first, _, waiting = text(tmp_path).partition("<template>")
    assert first.count("<tbody data-order=") == FIRST_ROWS
    assert waiting.partition("</template>")[0].count("<tbody data-order=") == 5
    assert f"The first {FIRST_ROWS} of {FIRST_ROWS + 5} rows" in waiting


def test_rows_are_sorted_by_the_values_of_a_column(tmp_path):
    values = [0.0009, 0.5, 1e-5, 0.01, None]
    for n, value in enumerate(values):
        accuracy = 0.9 - n / 100
        names = ["b10", "b9", "A1", "a1", "9" * 1_000]
        write(tmp_path / str(n), learning_rate=value, model=names[n], test_accuracy=accuracy)
    assert orders(tmp_path, "learning_rate") == [1, 3, 0, 2, -1]
    assert orders(tmp_path, "model") == [4, 3, 1, 2, 0]


def test_a_value_without_a_number_is_missing_whatever_its_cell_says(tmp_path):
    reference = PUBLISHED["reference"]
    write(tmp_path / "a", experiment="lenet", reference=reference)
    write(tmp_path / "b", model="x", experiment="x", reference=reference, deviations=["epochs=9"])
    assert "recipe changed</td>" in text(tmp_path)
    assert sorted(orders(tmp_path, "difference")) == [-1, 0]


# --- nothing gets out, nothing gets in --------------------------------------------------------


def test_the_policy_lets_nothing_in_but_the_script_of_the_page(tmp_path):
    write(tmp_path)
    written = text(tmp_path)
    (policy,) = (
        meta["content"] for meta in Elements(written).every("meta") if "http-equiv" in meta
    )
    (script,) = re.findall(r"<script>(.*?)</script>", written, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ") == [
        *("default-src 'none'", f"script-src 'sha256-{digest}'", "style-src 'unsafe-inline'"),
        *("img-src data:", "base-uri 'none'", "form-action 'none'"),
    ]
    elements = Elements(written)
    assert not [one for one in elements.every("script") if "src" in one]
    assert [link["href"] for link in elements.every("link")] == ["data:,"]
    assert not re.search(r"@import|url\(|innerHTML|insertAdjacent|document\.write|eval\(", written)
    assert "://" not in written


def test_hostile_values_come_out_inert(tmp_path):
    write_hostile(tmp_path)
    write(tmp_path / "javascript:alert(1)" / "a\u202eb", model="\x00</script><script>alert(2)")
    written = text(tmp_path)
    elements = Elements(written)
    sections = report.build([tmp_path]).sections
    scripts = elements.every("script")
    assert scripts == [{}]
    assert written.count("</script") == len(scripts)
    assert {tag for tag, _ in elements.found} == {
        *("html", "head", "meta", "title", "link", "style", "body", "header", "h1", "p", "nav"),
        *("ul", "li", "a", "span", "main", "section", "h2", "h3", "h4", "div", "table", "thead"),
        *("tbody", "tr", "th", "td", "details", "summary", "pre", "code", "script", "b"),
        *("label", "input", "output", "fieldset", "button"),
    }
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")], tag
    for link in elements.every("a"):
        assert re.fullmatch(r"#[\w-]+|(?!/)[\w./~%-]+", link["href"])
    assert "javascript%3Aalert%281%29/a%E2%80%AEb/result.json" in written
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u200b-\u200f\u2028-\u202f\ufeff]", written)
    assert len(sections) == len(HOSTILE) + 1


def test_the_same_runs_give_the_same_page(tmp_path):
    many(tmp_path, 20)
    assert text(tmp_path) == text(tmp_path)
    assert "2026-11-21 12:00:00 UTC" in text(tmp_path)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(scheme):
    style = (Path(report.__file__).parent / "render" / "page.css").read_text("utf-8")
    variables = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", variables))
    pairs = [
        (front, back, 4.5) for front in ("ink", "soft", "link") for back in ("paper", "raised")
    ]
    pairs += [("figure-ink", "figure-paper", 4.5), ("figure-soft", "figure-paper", 4.5)]
    for front, back, least in [*pairs, ("edge", "paper", 3), ("note", "paper", 3)]:
        assert contrast(colours[front], colours[back]) >= least, (front, back)


# --- in a browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A page of many rows."""
    root = many(tmp_path_factory.mktemp("large"))
    path = root / "benchmark.html"
    path.write_text(text(root, figures=(figure("curves", "fashion_mnist"),)), "utf-8")
    return path


@pytest.fixture
def tab(chromium: Browser, large: Path):
    opened = chromium.page().open(large)
    yield opened
    assert opened.complaints == []
    assert opened.requests == [large.as_uri()]
    opened.close()


#: The headings of columns, by key.
TITLES = {column.key: column.title for column in columns.SHOWN}

#: The headings that are seen.
HEADS = "[...document.querySelectorAll('.rows thead th')].filter((th) => th.offsetWidth > 0)"
OPEN = "[...document.querySelectorAll('.more')].filter((one) => one.offsetHeight > 0)"


def column(tab: Page, heading: str) -> list[str]:
    """The cells of a column, as they are drawn."""
    return tab.run(f"""(() => {{
        const head = {HEADS}.find((th) => th.textContent.startsWith({json.dumps(heading)}));
        const rows = document.querySelectorAll(".rows tbody tr:not(.more)");
        return [...rows].map((row) => row.cells[head.cellIndex].textContent);
    }})()""")


def show_all_columns(tab: Page) -> None:
    tab.run(
        "document.querySelectorAll('.menu input').forEach((tick) => tick.checked || tick.click())"
    )


def click(tab: Page, heading: str) -> None:
    tab.run(
        "[...document.querySelectorAll('.rows thead [role=button]')]"
        f".find((one) => one.textContent.startsWith({json.dumps(heading)})).click()"
    )


def type_filter(tab: Page, words: str) -> str:
    """Type into the filter box, and what the count says then."""
    return tab.run(f"""new Promise((done) => {{
        const box = document.querySelector("input[type=search]");
        box.value = {json.dumps(words)};
        box.dispatchEvent(new Event("input"));
        setTimeout(() => done(document.querySelector("output").textContent), 50);
    }})""")


@pytest.mark.slow
def test_a_click_sorts_by_value_and_what_is_missing_is_last(tab):
    show_all_columns(tab)
    click(tab, TITLES["seconds_train"])
    assert column(tab, TITLES["seconds_train"])[:2] == ["55 min 00 s", "54 min 50 s"]
    click(tab, TITLES["seconds_train"])
    assert column(tab, TITLES["seconds_train"])[:3] == ["10.0 s", "20.0 s", "30.0 s"]
    state = (
        "[...document.querySelectorAll('[aria-sort]')].map((th) => [th.textContent, th.ariaSort])"
    )
    assert tab.run(state) == [[TITLES["seconds_train"], "ascending"]]
    click(tab, "model")
    assert list(dict.fromkeys(column(tab, "model"))) == ["densenet", "lenet"]
    tab.run("document.querySelector('.further button:last-child').click()")
    assert list(dict.fromkeys(column(tab, "model"))) == ["densenet", "lenet", "resnet8", "resnet18"]
    for _ in range(2):
        click(tab, TITLES["validation_accuracy"])
        tab.run("document.querySelector('.further button:last-child').click()")
        cells = column(tab, TITLES["validation_accuracy"])
        assert cells[110:] == ["-"] * 220
        numbers = [float(cell) for cell in cells[:110]]
        assert numbers in (sorted(numbers), sorted(numbers, reverse=True))


@pytest.mark.slow
def test_the_keyboard_sorts_too(tab):
    tab.run("document.querySelectorAll('.rows thead [role=button]')[0].focus()")
    tab.key("Enter", 13, "\r")
    assert column(tab, "#")[:2] == ["330", "329"]
    for heading in ("rank", "model"):
        tab.key("Tab", 9)
        assert tab.run("document.activeElement.textContent") == heading
    tab.key(" ", 32, " ")
    assert column(tab, "model")[0] == "densenet"


FILTERS = [
    ("", "330 rows"),
    ("densenet", "82 of 330 rows"),
    ("DENSE epochs=8", "1 of 330 rows"),
    ("model=resnet18 batch_size=1024", "9 of 330 rows"),
    ("model=resnet", "165 of 330 rows"),
    ("batch_size=4", "37 of 330 rows"),
    ("batch_size=1,024", "36 of 330 rows"),
    ("learning_rate=5e-2", "330 rows"),
    ("runs/17", "11 of 330 rows"),
    ("runs/171", "1 of 330 rows"),
    ("model=none", "0 of 330 rows"),
    ("no=such", "0 of 330 rows"),
]


@pytest.mark.slow
def test_the_filter_finds_words_and_values(tab):
    for words, found in FILTERS:
        assert (words, type_filter(tab, words)) == (words, found)
        assert len(column(tab, "model")) == min(int(found.split()[0]), FIRST_ROWS)


@pytest.mark.slow
def test_more_rows_are_drawn_when_asked_for(tab):
    assert len(column(tab, "model")) == FIRST_ROWS
    tab.run("document.querySelector('.further button').click()")
    assert column(tab, "#") == [str(n + 1) for n in range(ROWS)]
    assert tab.run("document.querySelector('.further').hidden")


@pytest.mark.slow
def test_a_row_opens_and_stays_open(tab):
    tab.run("document.querySelectorAll('tbody summary')[1].click()")
    tab.until(f"{OPEN}.length === 1 && {OPEN}[0].innerText.includes('device')")
    said = tab.run(f"{OPEN}[0].innerText")
    assert "python -m fmbench model=resnet18 epochs=2 seed=0" in said
    assert "seed 0: runs/1 config" in said
    assert "device=AMD EPYC, 2 threads, fp32" in said  # a column that is not shown
    assert "batch size=" not in said
    assert tab.run("document.querySelectorAll('.more a')[2].getAttribute('href')") == "runs/1/"
    click(tab, "#")
    assert tab.run(f"{OPEN}.length") == 0  # it is among the last
    click(tab, "#")
    assert tab.run(f"{OPEN}.length") == 1
    tab.run("document.querySelectorAll('tbody summary')[1].click()")
    assert tab.run(f"{OPEN}.length") == 0


@pytest.mark.slow
def test_columns_that_do_not_fit_can_be_shown(tab):
    for width in (1280, 800, 390):
        tab.size(width, 800)
        tab.until(f"{HEADS}.at(-1).getBoundingClientRect().right <= {width}")
    total = tab.run("document.querySelectorAll('.rows thead th').length")
    assert 3 < tab.run(f"{HEADS}.length") < 6
    show_all_columns(tab)
    assert tab.run(f"{HEADS}.length") == total
    tab.size(800, 800)
    assert tab.run(f"{HEADS}.length") == total  # what was chosen stays


@pytest.mark.slow
def test_what_was_chosen_on_the_test_set_is_no_order(tab):
    show_all_columns(tab)
    title = json.dumps(TITLES["best_test_accuracy"])
    head = f"[...document.querySelectorAll('th')].find((th) => th.textContent === {title})"
    assert tab.run(f"{head}.querySelector('[role=button]')") is None
    assert "Chosen on the test set" in tab.run(f"{head}.title")
    before = column(tab, "#")
    tab.run(f"{head}.click()")
    assert column(tab, "#") == before
    others = "[...document.querySelectorAll('.rows th[scope=col]')].filter((th) => !th.title)"
    assert tab.run(f"{others}.every((th) => th.querySelector('[role=button]'))")


@pytest.mark.slow
def test_a_long_name_is_cut_in_the_table_and_whole_in_its_details(chromium, tmp_path):
    name = "\U0001f600" + "long " * 100 + "name"
    write(tmp_path, model=name)
    path = tmp_path / "benchmark.html"
    path.write_text(text(tmp_path), "utf-8")
    for javascript in (False, True):
        tab = chromium.page(javascript=javascript).open(path)
        tab.run("document.querySelector('tbody summary').click()")
        tab.until(f"{OPEN}.length === 1")
        assert column(tab, "model") == [f"{name[:80]}..."]
        assert tab.run("document.querySelector('tbody summary').offsetHeight") < 70
        assert name in tab.run("document.querySelector('.raw').textContent")
        tab.close()


@pytest.mark.slow
def test_a_phone_sees_the_model_and_its_accuracy(tab):
    tab.size(390, 800)
    tab.until(f"{HEADS}.length < 6")
    assert tab.run("document.documentElement.scrollWidth") == 390
    seen = tab.run(f"{HEADS}.map((th) => th.textContent)")
    assert {"model", "n", TITLES["test_accuracy"]} <= set(seen)
    assert tab.run(f"{HEADS}.at(-1).getBoundingClientRect().right") <= 390
    show_all_columns(tab)
    model = "document.querySelector('.rows tbody th').getBoundingClientRect()"
    tab.run("document.querySelector('.rows').scrollLeft = 500")
    assert tab.run(f"{model}.left") == tab.run("document.querySelector('.rows').offsetLeft")
    assert tab.run("document.documentElement.scrollWidth") == 390


@pytest.mark.slow
def test_the_scheme_follows_the_readers(tab):
    ground = "getComputedStyle(document.body).backgroundColor"
    line = "getComputedStyle(document.querySelector('path')).stroke"
    assert (tab.run(ground), tab.run(line)) == ("rgb(255, 255, 255)", "rgb(26, 26, 26)")
    tab.scheme("dark")
    assert (tab.run(ground), tab.run(line)) == ("rgb(21, 24, 28)", "rgb(228, 230, 233)")


@pytest.mark.slow
def test_paper_has_no_buttons_and_dark_ink(tab):
    # Where headings are repeated on the next sheet, Chromium leaves buttons out.
    assert tab.run("document.querySelectorAll('thead button').length") == 0
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    tab.call("Emulation.setEmulatedMedia", media="print", features=features)
    hidden = "[...document.querySelectorAll('nav, .tools, .further')].every((one) => "
    assert tab.run(f"{hidden} getComputedStyle(one).display === 'none')")
    assert tab.run("getComputedStyle(document.body).color") == "rgb(26, 26, 26)"
    assert tab.run("getComputedStyle(document.querySelector('.rows')).overflow") == "visible"
    assert tab.run("getComputedStyle(document.querySelector('.rows')).maxHeight") == "none"
    tab.call("Page.printToPDF", preferCSSPageSize=True)


@pytest.mark.slow
def test_hostile_values_do_nothing_in_a_browser(chromium, tmp_path):
    write_hostile(tmp_path)
    write(tmp_path / "javascript:alert(1)", model='"><img src=x onerror=alert(1)>\x00')
    path = tmp_path / "benchmark.html"
    path.write_text(text(tmp_path), "utf-8")
    tab = chromium.page().open(path)
    show_all_columns(tab)
    tab.run("document.querySelectorAll('tbody summary').forEach((one) => one.click())")
    tab.until(f"{OPEN}.length === document.querySelectorAll('tbody summary').length")
    assert tab.events("Page.javascriptDialogOpening") == []
    assert (tab.complaints, tab.requests) == ([], [path.as_uri()])
    assert tab.run("document.querySelectorAll('img, iframe, object, embed').length") == 0
    assert tab.run("document.querySelectorAll('script').length") == 1
    links = tab.run("[...document.querySelectorAll('a')].map((one) => one.href)")
    assert {link.partition(":")[0] for link in links} == {"file"}
    models = tab.run(
        "[...document.querySelectorAll('tbody summary')].map((one) => one.textContent)"
    )
    assert {one_line(value) for value in HOSTILE} <= {net.split(" (")[0] for net in models}
    tab.close()


def test_the_policy_stops_what_should_ever_get_in(chromium, tmp_path):
    write(tmp_path)
    smuggled = "<script>document.title = 'gone'</script><img src=x.png onerror=\"alert(1)\"></main>"
    path = tmp_path / "benchmark.html"
    path.write_text(text(tmp_path).replace("</main>", smuggled), "utf-8")
    tab = chromium.page().open(path)
    assert tab.run("document.title").startswith("Benchmark")
    assert tab.requests == [path.as_uri()]
    assert len(tab.complaints) >= 2
    tab.close()


@pytest.mark.slow
def test_without_javascript_rows_can_be_read_and_opened(chromium, large):
    tab = chromium.page(javascript=False).open(large)
    assert len(column(tab, "model")) == FIRST_ROWS
    seen = "[...document.querySelectorAll('button, [role=button], input')]"
    assert tab.run(f"{seen}.filter((one) => one.offsetHeight > 0).length") == 0
    assert tab.run(f"{OPEN}.length") == 0
    where = "(({x, y, height}) => [x + 20, y + height / 2])(document.querySelector('tbody summary')"
    tab.run("document.querySelector('tbody summary').scrollIntoView({block: 'center'})")
    x, y = tab.run(f"{where}.getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    assert tab.run(f"{OPEN}.length") == 1
    assert "python -m fmbench model=lenet epochs=1 seed=0" in tab.run("document.body.innerText")
    assert "The first 100 of 330 rows" in tab.run("document.body.innerText")
    assert tab.requests == [large.as_uri()]
    tab.close()
