"""evaluate/report.py: what the page and report.json say, and that any browser can show it."""

import base64
import hashlib
import html
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, run
from report_tree import SETTINGS, Tree, sample_tree, small_tree, write

from growth.data.study import published_study, read_study
from growth.report import summary

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
EXAMPLE = ROOT / "data/example.toml"
VOID = {"meta", "link", "br", "img", "input", "hr"}


def report(tree, *flags, check=True):
    """Run evaluate/report.py; the text of the page and report.json."""
    done = run(ROOT / "evaluate/report.py", *tree.flags(), *flags, cwd=tree.folder, check=check)
    if not check:
        return done
    page = (tree.folder / "report/report.html").read_text(encoding="utf-8")
    return page, json.loads((tree.folder / "report/report.json").read_bytes())


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Three sizes, two series, three seeds: the tree, its page, its report.json."""
    tree = sample_tree(tmp_path_factory.mktemp("sample"))
    return tree, *report(tree)


class Page(HTMLParser):
    """The elements of a page: (name, attributes, names of those around it), and the texts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "every element that is opened is closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def named(self, *names):
        return [(tag, attrs) for tag, attrs, _ in self.elements if tag in names]

    def text(self, tag):
        return [data for name, data in self.texts if name == tag]


def kinds(numbers):
    return {problem["kind"] for problem in numbers["problems"]}


def message(numbers, kind):
    (found,) = [p["message"] for p in numbers["problems"] if p["kind"] == kind]
    return found


# What it says


def test_the_report_has_the_keys_that_its_schema_says(sample):
    documented = re.findall(r"^    ([a-z]+)  ", summary.__doc__, re.MULTILINE)
    assert list(sample[2]) == documented


def test_overview(sample):
    _, page, numbers = sample
    overview = numbers["overview"]
    assert overview["models"] == ["7b", "13b", "33b"]
    assert overview["seeds"] == [0, 1, 2]
    assert (overview["settings_scored"], overview["settings"]) == (len(SETTINGS), 17)
    assert (overview["runs"], overview["training_runs"]) == (54, 56)
    assert (overview["questions"], overview["answers"]) == (1300, 54 * 1300)
    assert overview["checkpoints_compared"] == 108
    assert len(overview["averages"]) == 18
    assert [best["setting"] for best in overview["best"]] == ["curated-2560"] * 3
    assert all(best["overlapping"] == best["tied"] == [] for best in overview["best"])
    assert "Highest average of 13b" in page


def test_every_point_is_the_mean_of_its_seeds(sample):
    curves = {curve["ability"]: curve for curve in sample[2]["curves"]}
    study = published_study()
    names = ["average", *(a.name for a in study.in_domain)]
    assert list(curves) == [*names, "ood_average", *(a.name for a in study.out_of_domain)]
    for curve in curves.values():
        assert len(curve["points"]) == 18
        for point in curve["points"]:
            assert point["runs"] == len(point["run_scores"]) == len(point["checkpoints"]) == 3
            assert point["score"] == pytest.approx(sum(point["run_scores"]) / 3, abs=1e-4)
            assert point["low"] < point["score"] < point["high"]
    first = curves["biology"]["points"][0]
    assert (first["model_size"], first["setting"]) == ("7b", "curated-10")
    assert first["checkpoints"][0] == "curated-10/seed-0/checkpoint-6"
    assert first["run_scores"] == [28.0, 29.0, 30.0]


def test_the_noise_floor_of_each_ability(sample):
    """Made-up seeds differ by a point: a variance of 1, where the questions alone have 20."""
    tree, page, numbers = sample
    rows = {(row["ability"], row["model_size"]): row for row in numbers["noise"]}
    assert len(rows) == 3 * len(numbers["curves"])
    row = rows["biology", "7b"]
    assert (row["settings"], row["runs"], row["sd"]) == (6, 18, 1.0)
    assert row["sd_questions"] == pytest.approx(4.6, abs=0.3)
    assert (row["explained"], row["sd_training"]) == (100, 0)
    table = pd.read_csv(tree.folder / "report/noise.csv")
    own = table[(table["ability"] == "biology") & (table["model_size"] == "7b")].iloc[0]
    assert own["difference"] == pytest.approx(row["difference"], rel=1e-4)
    assert "Noise floor by ability" in page
    assert "interval of questions and training" in page


def test_the_laws_are_drawn_on_request(tmp_path):
    tree = small_tree(tmp_path, read_study(EXAMPLE))
    plain, _ = report(tree)
    laws, numbers = report(tree, "--laws")
    assert "fitted law with its 90 % interval" in laws
    assert "fitted law" not in plain
    assert len(laws) > len(plain)
    assert numbers["curves"]


def test_without_repeats_the_page_says_that_training_noise_is_not_known(tmp_path):
    page, numbers = report(small_tree(tmp_path, read_study(EXAMPLE)))
    assert numbers["noise"] == []
    assert "noise of training is not known" in page
    assert "training noise is not in it" in page


def test_neighbouring_sizes_and_two_series_are_compared(sample):
    _, page, numbers = sample
    compared = numbers["compared"]
    assert [(row["a"], row["b"]) for row in compared if row["model_size"] == "13b"] == [
        ("curated-160", "curated-10"),
        ("curated-2560", "curated-160"),
        ("synthetic-2560", "synthetic-160"),
        ("curated-160", "synthetic-160"),
        ("curated-2560", "synthetic-2560"),
    ]
    assert len(compared) == 15
    averages = {p["setting"]: p for p in numbers["overview"]["averages"] if p["model_size"] == "7b"}
    for row in compared[:5]:
        assert (row["runs_a"], row["runs_b"]) == (3, 3)
        gain = averages[row["a"]]["score"] - averages[row["b"]]["score"]
        assert row["difference"] == pytest.approx(gain, abs=0.02)
        assert row["low"] < row["difference"] < row["high"]
        assert row["p"] <= row["p_holm"]
        assert [part["ability"] for part in row["abilities"]].count("average") == 1
    text = f"{compared[0]['difference']:+.1f} <small>[{compared[0]['low']:+.1f}, "
    assert text.replace("-", "\u2212") in page


def test_settings_of_a_study_whose_file_was_moved_are_compared(tmp_path):
    file = shutil.copy(EXAMPLE, tmp_path / "own.toml")
    tree = small_tree(tmp_path, read_study(file))
    moved = file.rename(tmp_path / "moved.toml")
    assert len(report(tree, "--study", moved)[1]["compared"]) == 4


def test_without_verdicts_nothing_is_compared(tmp_path):
    tree = small_tree(tmp_path, read_study(EXAMPLE))
    for folder in tree.results.rglob("*-details"):
        shutil.rmtree(folder)
    page, numbers = report(tree)
    assert numbers["compared"] == []
    assert "No two settings could be compared" in page
    assert message(numbers, "not compared").startswith("4 of 4 pairs of settings are not compared")
    assert "score.py --pred_data_path" in message(numbers, "not compared")


def test_the_checkpoint_of_each_run_has_its_reason_and_test_score(sample):
    _, page, numbers = sample
    assert len(numbers["selections"]) == 54
    first = numbers["selections"][0]
    assert (first["model_size"], first["data_type"], first["timestamp"]) == (
        "7b",
        "curated-10",
        "seed-0",
    )
    assert first["valid_average"] == 29.0
    assert first["test_average"] == 35.2
    assert [c["average"] for c in first["candidates"]] == [28.0, 29.0]
    assert html.escape(first["reason"]) in page


def test_benchmarks_stand_below_the_papers_numbers(sample):
    _, page, numbers = sample
    columns = ["AGIEval 0-shot", "CMMLU 0-shot", "AGIEval few-shot", "CMMLU 5-shot"]
    assert numbers["benchmarks"]["columns"] == columns
    rows = numbers["benchmarks"]["rows"]
    place = next(i for i, row in enumerate(rows) if not row["paper"] and not row["smoke"])
    paper, own = rows[place - 1 : place + 1]
    assert paper["paper"]
    assert all(row["data_type"] == "maximum" and row["epoch"] == 5 for row in (paper, own))
    assert [paper["scores"][c]["average"] for c in columns] == [36.41, 37.74, 33.37, 37.02]
    assert [own["scores"][c]["average"] for c in columns] == [34.0, 36.2, 33.5, 35.1]
    assert own["scores"]["CMMLU 0-shot"]["low"] == 34.2
    assert "arXiv 2310.19651" in page
    assert sum(row["paper"] for row in rows) == 15


def test_costs(sample):
    _, page, numbers = sample
    costs = {tuple(c[k] for k in ("model_size", "data_type", "seed")): c for c in numbers["costs"]}
    whole = costs["7b", "curated-160", 1]
    assert (whole["state"], whole["steps"], whole["steps_planned"]) == ("finished", 6, 6)
    assert (whole["tokens_trained"], whole["supervised_tokens_trained"]) == (24000, 5400)
    assert (whole["step_seconds"], whole["seconds"]) == (240.0, 12300.0)
    cut = costs["7b", "curated-640", 0]
    assert (cut["state"], cut["steps"], cut["seconds"]) == ("unfinished", 3, None)
    assert "3 h 25 min" in page
    assert (whole["peak_memory_bytes"], cut["peak_memory_bytes"]) == (30 * 2**30, None)
    assert "30.00 GiB" in page


def test_provenance_of_every_number(sample):
    tree, page, numbers = sample
    results = numbers["provenance"]["results"]
    shown = {
        p for curve in numbers["curves"] for row in curve["points"] for p in row["checkpoints"]
    }
    assert len(results) == 54
    run_of = {
        "/".join(r["run"][k] for k in ("data_type", "timestamp", "checkpoint")) for r in results
    }
    assert run_of == shown
    for row in results:
        assert (tree.folder / row["path"]).is_file()
        assert row["path"] in page
        assert row["run"]["git"]["commit"] in json.dumps(numbers)
        assert row["files"]["biology_test"] == {"n": 100, "digest": "0" * 16}
    for row in numbers["provenance"]["runs"]:
        assert row["model_fingerprint"] == "ef" * 32
        assert row["data"]["train"]["files"]["a.json"]["sha256"] == "ab" * 32
    assert "python 3.11.7, torch 2.13.0" in page


def test_what_failed_or_is_missing(sample):
    _, page, numbers = sample
    assert "curated-640/seed-0: 3 of 6 steps, not ended" in message(numbers, "unfinished run")
    assert "curated-640/seed-0.log" in message(numbers, "unfinished run")
    assert "curated-40/seed-4: trained" in message(numbers, "run without results")
    missing = [p["message"] for p in numbers["problems"] if p["kind"] == "setting without a run"]
    assert [text.split(":")[0] for text in missing] == ["7b", "13b", "33b"]
    assert "curated-40," in missing[1]
    assert "curated-40," not in missing[0]  # it was trained
    assert "results-limit3.json" in message(numbers, "smoke run")
    assert "longer results are there" in message(numbers, "note")
    for problem in numbers["problems"]:
        assert html.escape(problem["message"], quote=False) in html.unescape(page)


def test_a_smoke_run_is_marked_wherever_its_numbers_are(tmp_path):
    tree = Tree(tmp_path, published_study())
    tree.score(tree.run("7b", "curated-10"), 30, limit=5)
    page, numbers = report(tree)
    assert "the first 5 lines of each file; not a result" in message(numbers, "smoke run")
    rows = len(numbers["overview"]["averages"]) + sum(len(c["points"]) for c in numbers["curves"])
    assert page.count("(smoke run: first 5 lines of each file)") >= rows


def test_a_study_of_ones_own(tmp_path):
    study = read_study(EXAMPLE)
    page, numbers = report(small_tree(tmp_path, study))
    titles = ["Average of the three abilities", *(a.heading for a in study.abilities)]
    assert [curve["title"] for curve in numbers["curves"]] == titles
    assert numbers["overview"]["settings_scored"] == numbers["overview"]["settings"] == 5
    assert numbers["benchmarks"]["published"] is None
    assert numbers["problems"] == []
    assert "Nothing: every setting of the study has a finished run" in page
    assert Page(page).text("h3") == titles
    assert "2310.19651" not in page


def test_the_report_of_a_named_study_has_a_folder_of_its_own(tmp_path):
    tree = small_tree(tmp_path, read_study(EXAMPLE))
    flags = [flag for flag in tree.flags() if not flag.startswith("--output_dir")]
    done = run(ROOT / "evaluate/report.py", *flags, "--study", EXAMPLE, cwd=tmp_path)
    made = ("report.html", "report.json", "noise.csv")
    names = [f"evaluate/report/example/{name}" for name in made]
    assert done.stdout.splitlines() == names
    assert all((tmp_path / name).is_file() for name in names)


def test_a_resumed_run_counts_each_step_once(tmp_path):
    tree = small_tree(tmp_path, read_study(EXAMPLE))
    metrics = tree.runs / "runs-pocket/own-8/seed-0/metrics.jsonl"
    step, old = '{"step": 6, "loss": 2, "tokens": 4000, ', metrics.read_text()
    metrics.write_text(old + step + '"tokens_per_second": 200}\nno JSON\n')
    cost = report(tree)[1]["costs"][0]
    assert cost["tokens_trained"] == 24000
    assert cost["step_seconds"] == 220.0
    assert cost["supervised_tokens_trained"] is None  # of one step it is not known


def test_what_a_record_says_against_its_run(tmp_path):
    tree = small_tree(tmp_path, read_study(EXAMPLE))
    path = tree.runs / "runs-pocket/own-8/seed-0/run.json"
    record = json.loads(path.read_text())
    record["train"]["answers_lost"] = 3
    write(path, record | {"resumed_otherwise": [{"step": 2, "torch": "2.0"}]})
    _, numbers = report(tree)
    assert "3 training samples lost their whole answer" in message(numbers, "truncated")
    assert "resumed 1 times" in message(numbers, "resumed otherwise")
    resumed = numbers["provenance"]["runs"][0]["resumed_otherwise"]
    assert resumed == [{"step": 2, "torch": "2.0"}]


# What it is given


def test_the_untuned_model_is_in_the_tables_and_no_setting_and_no_run(tmp_path):
    tree = small_tree(tmp_path, read_study(EXAMPLE))
    _, before = report(tree)
    run = {"model_size": "pocket", "data_type": "untuned", "timestamp": "base"}
    scored = tree.score(run | {"study": tree.study.record()}, 20, "checkpoint-0")
    page, numbers = report(tree)
    assert numbers["problems"] == before["problems"]
    for key in ("settings_scored", "settings", "training_runs"):
        assert numbers["overview"][key] == before["overview"][key]
    assert str(scored.relative_to(tmp_path)) in [
        result["path"] for result in numbers["provenance"]["results"]
    ]
    own = [row for row in numbers["overview"]["averages"] if row["setting"] == "base"]
    assert [row["samples"] for row in own] == [0]
    assert '<th scope="row">base</th>' in page


def test_an_untuned_model_that_a_benchmark_knows_by_its_tag_has_no_size(tmp_path):
    tree = small_tree(tmp_path, read_study(EXAMPLE))
    run = {"model_size": "unknown", "data_type": "untuned", "timestamp": "base"}
    tree.benchmark("cmmlu", {"0-shot": 36.2}, run)
    page, numbers = report(tree)
    sizes = [row["model_size"] for row in numbers["benchmarks"]["rows"] if not row["paper"]]
    assert None in sizes
    assert "unknown" not in {*sizes, *re.findall(r"<td>([^<]*)</td>", page)}


def test_results_alone_are_enough(tmp_path):
    tree = small_tree(tmp_path, read_study(EXAMPLE))
    shutil.rmtree(tree.runs)
    page, numbers = report(tree)
    assert numbers["costs"] == numbers["selections"] == numbers["benchmarks"]["rows"] == []
    assert kinds(numbers) == {"results without a run"}
    assert "No run record was found" in page


def test_damaged_records_are_listed_and_the_rest_is_shown(tmp_path):
    tree = small_tree(tmp_path, read_study(EXAMPLE))
    (tree.runs / "runs-pocket/own-8/seed-0/run.json").write_text("{")
    write(tree.benchmarks / "cmmlu/outputs/x/results.json", {"run": {}, "settings": {"0-shot": 3}})
    (tree.runs / "runs-pocket/own-16/seed-0/metrics.jsonl").write_bytes(b"\xff\n[]\n")
    _, numbers = report(tree)
    damaged = [p["message"] for p in numbers["problems"] if p["kind"] == "damaged file"]
    assert ["own-8" in damaged[0], "cmmlu" in damaged[1]] == [True, True]
    assert len(numbers["costs"]) == 4
    assert len(numbers["curves"]) == 4


def test_a_run_is_of_its_study_whatever_rule_has_changed_since(tmp_path):
    tree = small_tree(tmp_path, read_study(EXAMPLE))
    path = tree.runs / "runs-pocket/own-8/seed-0/run.json"
    record = json.loads(path.read_text())
    write(path, record | {"study": record["study"] | {"digest": "0" * 16}})
    _, numbers = report(tree)
    assert len(numbers["costs"]) == 5
    assert numbers["problems"] == []


def test_runs_of_other_studies_and_copies_are_left_out(tmp_path):
    tree = small_tree(tmp_path, read_study(EXAMPLE))
    shutil.copytree(tree.runs / "runs-pocket/own-8/seed-0", tree.runs / "z/copy")
    other = Tree(tmp_path, published_study())
    other.train(other.run("7b", "curated-10"))
    _, numbers = report(tree)
    left_out = [p["message"] for p in numbers["problems"] if p["kind"] == "left out"]
    assert ["a run of the study doit" in left_out[0], "a copy of" in left_out[1]] == [True, True]
    assert len(numbers["costs"]) == 5


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda tree: shutil.rmtree(tree.results), "no such folder"),
        (lambda tree: (tree.folder / "report").write_text(""), "choose another folder"),
        (
            lambda tree: write(tree.valid / "selected-checkpoint.json", {"model_size": 3}),
            "make it anew with evaluate/select_checkpoint.py",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, break_it, said):
    tree = small_tree(tmp_path, read_study(EXAMPLE))
    break_it(tree)
    done = report(tree, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


# The page


def test_what_the_page_is_made_of_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["growth.report"]
    parts = {path.name for path in (ROOT / "growth/report").iterdir() if path.is_file()}
    parts = {name for name in parts if not name.endswith(".py")}
    assert parts == {"report.css", "report.html.jinja", "report.js"}
    assert {name for name in parts if any(map(Path(name).match, patterns))} == parts


def test_the_same_files_give_the_same_bytes(tmp_path):
    trees = [small_tree(tmp_path / name, read_study(EXAMPLE)) for name in ("one", "two")]
    report(trees[0])
    command = [sys.executable, ROOT / "evaluate/report.py", *trees[1].flags()]
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run(command, cwd=trees[1].folder, check=True, env=environment, capture_output=True)
    for name in ("report.html", "report.json", "noise.csv"):
        one, two = ((tree.folder / "report" / name).read_bytes() for tree in trees)
        assert one == two


def test_the_page_asks_for_nothing_else(sample):
    _, page, _ = sample
    for tag, attributes in Page(page).named(*{tag for tag, *_ in Page(page).elements}):
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "data", "action", "srcset"):
                assert value.startswith("#"), (tag, name, value)
    outside = re.findall(r"url\((?!#)|@import|https?://[^\s\"<]+", page)
    assert set(outside) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_page_can_be_read_by_everyone(sample):
    page = Page(sample[1])
    ((_, attributes),) = page.named("html")
    assert attributes["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.named("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all("scope" in attributes for _, attributes in page.named("th"))
    order = [tag for tag, _ in page.named("h3", "figure", "table")]
    assert order.count("figure") == len(sample[2]["curves"])
    assert all(order[i + 1] == "table" for i, tag in enumerate(order) if tag == "figure")
    assert len(page.named("caption")) == len(page.named("table"))
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for _, attributes in page.named("svg"):
        assert attributes["role"] == "img"
        assert set(attributes["aria-labelledby"].split()) <= set(ids)
    targets = [attributes["href"].removeprefix("#") for _, attributes in page.named("a", "use")
               if "href" in attributes]  # fmt: skip
    targets += re.findall(r"url\(#([^)]+)\)", sample[1])
    assert set(targets) <= set(ids)


def test_a_figure_is_small_and_its_text_is_text(sample):
    figures = re.findall(r"<svg.*?</svg>", sample[1], re.DOTALL)
    assert max(map(len, figures)) < 60_000
    assert "training samples (log scale)" in html.unescape(figures[0])
    assert "at 2,560" in re.search(r"<desc[^>]*>(.*?)</desc>", figures[0])[1]
    assert not re.search(r' (?:x|y|d)="[^"]*\d\.\d{3}', figures[0])


NASTY = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "</style></title></svg>]]><!--",
    "$\\frac{$ x_1^2 \\undefined$",
    "bell\u0007, nought\u0000, \ufffe, 中文 & &amp;",
]


@pytest.mark.parametrize("text", NASTY)
def test_no_name_becomes_a_part_of_the_page(tmp_path, text):
    title = "".join(filter(str.isprintable, text))  # of others, the study's file is refused
    quoted = json.dumps(title)[1:-1]
    file = tmp_path / "nasty.toml"
    file.write_text(
        EXAMPLE.read_text(encoding="utf-8")
        .replace("Three small abilities", quoted)
        .replace("Sorting things", quoted),
        encoding="utf-8",
    )
    study = read_study(file)
    tree = Tree(tmp_path, study)
    size = text.replace("/", "").replace("\u0000", "")
    one = tree.run("small", "own-8", timestamp="t", seed=1)
    tree.train(one, device=text, model_name_or_path=text, versions={text: text}, ended=text)
    tree.score(one | {"versions": {text: text}}, 40)
    write(tree.results / "a-results.json", _renamed(tree.score(one, 41), size, text))
    path = tree.select(one, 40.0)
    write(path, json.loads(path.read_text()) | {"reason": text, "average_note": text})
    tree.benchmark("cmmlu", {"0-shot": 36.2, text: 20.0}, one, model_size=text, data_type=text)
    page, numbers = report(tree)
    parsed = Page(page)
    plain = small_tree(tmp_path / "plain", read_study(EXAMPLE))
    known = {tag for tag, *_ in Page(report(plain)[0]).elements}
    assert {tag for tag, *_ in parsed.elements} <= known
    assert len(parsed.named("script")) == len(parsed.named("style")) - len(parsed.named("svg")) == 1
    assert not [a for _, a, _ in parsed.elements if any(name.startswith("on") for name in a)]
    shown = re.sub("[\u0000\u0007\ufffe]", "\ufffd", text)
    assert f"Growth report: {title}" in parsed.text("h1")
    assert title in "".join(parsed.text("h3"))
    assert shown in parsed.text("td")
    assert numbers["study"]["title"] == title


def _renamed(path, size, text):
    """The results of `path`, of a run of another model size and of another time."""
    results = json.loads(path.read_text(encoding="utf-8"))
    results["run"] |= {"model_size": size, "timestamp": text, "fingerprint": text}
    return results


# A browser

_PROBE = """
const table = document.querySelector("table.sortable");
const head = [...table.tHead.rows[0].cells].findIndex((cell) => /^Samples/.test(cell.textContent));
const column = () => [...table.tBodies[0].rows].map((row) => row.cells[head].dataset.value);
const found = { before: column(), width: document.documentElement.scrollWidth - innerWidth };
const button = table.tHead.rows[0].cells[head].querySelector("button");
button.click();
found.up = column();
button.click();
found.down = column();
found.state = table.tHead.rows[0].cells[head].getAttribute("aria-sort");
found.loaded = performance.getEntriesByType("resource").length;
document.body.dataset.found = JSON.stringify(found);
"""


def browse(tmp_path, page, width):
    """The page's document after its scripts have run, and what the console says."""
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    profile = tmp_path / "profile"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    flags += ["--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND"]
    flags += [f"--window-size={width},1000", "--virtual-time-budget=5000", "--dump-dom"]
    command = [CHROMIUM, *flags, file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def with_script(page, script):
    """The page with one more script, which its policy lets pass."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = page.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    return allowed.replace("</body>", f"<script>{script}</script></body>")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian: apt-get install chromium)")
def test_a_browser_shows_and_sorts_it_and_runs_no_other_script(sample, tmp_path):
    for width in (360, 1200):
        document, console = browse(tmp_path, with_script(sample[1], _PROBE), width)
        assert console == []
        found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', document)[1]))
        rising = sorted(found["before"], key=int)
        assert found["up"] == rising != found["before"]
        assert found["down"] == rising[::-1]
        assert found["state"] == "descending"
        assert found["width"] <= 0  # only the boxes of tables and figures scroll sideways
        assert found["loaded"] == 0
    page = sample[1].replace("</body>", "<script>document.title = 'run'</script></body>")
    document, console = browse(tmp_path, page, 1200)
    assert "<title>run" not in document
    assert "Content Security Policy" in " ".join(console)  # so the console is heard, too
