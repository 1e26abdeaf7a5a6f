"""README and docs: their commands run as they stand, their flags and links exist."""

import csv
import functools
import itertools
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import ABILITY_NAMES, ROOT, copy_scripts, read_lines, run, write_lines

from growth.core.files import read_json

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    page
    for folder in (
        "*.md",
        "docs/*.md",
        "benchmarks/*.md",
        "train/*/*.md",
        "results/*/*.md",
        "evaluate/*/*.md",
    )
    for page in sorted(ROOT.glob(folder))
    if page.name != "LOG.md"  # which says what was run at the time
]
INSTALL, FIRST_SCREEN, STAGES = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("data", "train", "evaluate", "scripts")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "doit.py"  # lm-evaluation-harness runs it
)
WRAPPERS = [
    path.relative_to(ROOT).as_posix()
    for path in sorted([*ROOT.glob("scripts/*.sh"), *ROOT.glob("evaluate/*/run.sh")])
    if path.name not in ("common.sh", "test.sh")
]
BENCHMARKS = ["benchmarks/cmmlu.py", "benchmarks/prediction.py", "benchmarks/training.py"]


def test_readme_is_one_screen():
    assert len(README.encode()) <= 8192


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_table_is_one_block(page):
    """A row that lacks the mark of the quotation around it ends the table, and is drawn as text."""
    rows = [
        (number, re.match(r"((?:> ?)*)\|", line))
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
    ]
    for (number, first), (_, second) in itertools.pairwise(rows):
        assert not (first and second) or first[1] == second[1], f"{page}:{number + 1}"


def test_the_first_commands_are_the_demo_and_the_tests():
    commands = [shlex.split(line, comments=True) for line in FIRST_SCREEN.splitlines()]
    assert commands == [["bash", "scripts/demo.sh"], ["bash", "scripts/test.sh"]]


# A shell that has activated nothing

# Runs the real `python3`, but leaves pip out of an environment that it makes, and puts the stand-in
# below there: a real installation needs the network and minutes (.ci/run does one).
PYTHON3 = """#!/bin/bash
set -e
if [[ "$1 $2" == "-m venv" ]]; then
    "{python}" -m venv --without-pip "${{@:3}}"
    cp "{pip}" "${{@: -1}}/bin/pip"
else
    exec "{python}" "$@"
fi
"""
# Makes what requirements.txt asks for importable: the packages of the Python that runs the tests,
# and, for its last line, the clone itself.
PIP = """#!/bin/bash
set -e
[[ "$*" == "install -r requirements.txt" ]]
[[ "$(tail -n 1 requirements.txt)" == "-e ." ]]
printf '%s\\n' "$PWD" {packages} >"$VIRTUAL_ENV/lib/{version}/site-packages/stand-in.pth"
"""


class BareShell(NamedTuple):
    """A shell in a fresh clone in which nothing is installed or activated."""

    clone: Path
    environment: dict[str, str]

    def run(self, script, check=True):
        """Run lines of bash; each failure ends them."""
        done = subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n{script}"],
            cwd=self.clone,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            raise AssertionError(f"ended in {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done


@pytest.fixture(scope="module")
def bare_shell(tmp_path_factory):
    """One shell for the module; its tests leave the clone as they find it."""
    return make_bare_shell(tmp_path_factory.mktemp("bare"))


def make_bare_shell(folder):
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    clone = folder / "clone"
    for name in filter(None, names):
        if (ROOT / name).is_file():  # not so if it was removed and that is not committed yet
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    paths = {sysconfig.get_paths()[key] for key in ("purelib", "platlib")}
    python = Path(sys.base_prefix) / "bin" / version
    for name, text in (
        ("bin/python3", PYTHON3.format(python=python, pip=folder / "stand-in/pip")),
        ("stand-in/pip", PIP.format(packages=shlex.join(paths), version=version)),
    ):
        path = folder / name
        path.parent.mkdir()
        path.write_text(text)
        path.chmod(0o755)
    (folder / "home").mkdir()
    # `python` is what the system has, if anything: not the Python of the tests.
    path = os.pathsep.join([str(folder / "bin"), "/usr/bin", "/bin"])
    environment = {"HOME": str(folder / "home"), "PATH": path, "OMP_NUM_THREADS": "1"}
    return BareShell(clone, environment)


def assert_one_line_says_what_to_do(done):
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "README.md" in line


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_without_the_package_says_what_to_do(bare_shell, script):
    assert_one_line_says_what_to_do(bare_shell.run(f"python3 {script}", check=False))


ARGUMENTS = {
    "scripts/run_train.sh": "--data_type curated-10 --model_size pocket",
    "scripts/run_evaluate.sh": "--run_dir runs/none",
    "scripts/run_sweep.sh": "--model_size pocket --model_name_or_path train/pocket",
    "scripts/merge_lora.sh": "runs/none merged",
    "scripts/plan_demo.sh": "",
    "scripts/reliability.sh": "",
    "evaluate/cmmlu/run.sh": "cpu train/pocket none",
    "evaluate/agieval/run.sh": "cpu train/pocket none",
}


# The demo makes the environment itself.
@pytest.mark.parametrize("wrapper", [name for name in WRAPPERS if name != "scripts/demo.sh"])
def test_a_wrapper_without_an_environment_says_what_to_do(bare_shell, wrapper):
    done = bare_shell.run(f"bash {wrapper} {ARGUMENTS[wrapper]}", check=False)
    assert_one_line_says_what_to_do(done)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_has_help_without_an_environment(bare_shell, wrapper):
    assert f"bash {wrapper}" in bare_shell.run(f"bash {wrapper} --help").stdout


def test_after_the_install_lines_commands_work(tmp_path, tiny_data):
    shell = make_bare_shell(tmp_path)
    shutil.copytree(tiny_data / "curated/1000", shell.clone / "data/curated/1000")
    built = shell.run(f"{INSTALL}python data/build.py --data_type curated-10")
    assert "data/curated-10" in built.stdout
    # In another shell, the wrappers find .venv by themselves.
    done = shell.run(
        "bash scripts/run_train.sh --data_type curated-11 --model_size pocket", check=False
    )
    assert done.returncode == 2
    assert "nearest first: curated-10," in done.stderr


@pytest.mark.slow
def test_the_stages_run_as_they_stand(tmp_path):
    shell = make_bare_shell(tmp_path)
    done = shell.run(INSTALL + STAGES)
    assert done.stdout.splitlines()[-1] == "evaluate/plots/my-pocket/all/overview.png"
    points = overview(shell.clone / "evaluate/plots/my-pocket")
    assert {point["ability"] for point in points} == set(ABILITY_NAMES)
    assert {(point["model_size"], point["samples"]) for point in points} == {("my-pocket", "40")}


TUTORIAL = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
TUTORIAL_CPU = ("AuthenticAMD", "AVX512")  # of the tutorial's numbers


def tutorial_scores():
    """The table's scores: [score, low, high] by ability and samples."""
    header, *rows = re.findall(r"^\| (.*) \|$", TUTORIAL, re.MULTILINE)
    names = [title.split(" (")[0] for title in header.split(" | ")[1:]]
    return {
        (name, samples): [float(number) for number in re.findall(r"[\d.]+", cell)]
        for samples, *cells in (row.split(" | ") for row in rows)
        if samples.isdigit()
        for name, cell in zip(names, cells, strict=True)
    }


def this_cpu():
    found = re.search(r"vendor_id\s*: (\w+)", Path("/proc/cpuinfo").read_text())
    return found and found[1], torch.backends.cpu.get_cpu_capability()


@pytest.mark.slow
def test_the_tutorial_runs_and_its_numbers_are_the_runs(tmp_path):
    """Texts exactly; scores exactly on its kind of CPU, on others within both intervals."""
    shell = make_bare_shell(tmp_path)
    blocks = re.findall(r"```(bash|text)\n(.*?)```", TUTORIAL, re.DOTALL)
    printed = shell.run(INSTALL + "".join(text for kind, text in blocks if kind == "bash")).stdout
    same_cpu = this_cpu() == TUTORIAL_CPU
    for kind, text in blocks:
        if kind == "text" and (same_cpu or len(text) > 2):  # what the model answers
            assert text in printed
    expected = tutorial_scores()
    assert len(expected) == 20
    for (name, samples), (score, low, high) in expected.items():
        with (shell.clone / f"evaluate/plots/example/overall/{name}.csv").open() as file:
            (point,) = [row for row in csv.DictReader(file) if row["samples"] == samples]
        found = [float(point[key]) for key in ("score", "low", "high")]
        if same_cpu:
            assert found == [score, low, high], (name, samples)
        else:
            assert found[1] <= high, (name, samples)
            assert found[2] >= low, (name, samples)


def overview(plots):
    with (plots / "all/overview.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# The demo. At seed 1 three abilities grow by a wide margin (LOG.md), which another CPU's rounding
# won't undo.
QUICK_DEMO = ("scripts/demo.sh", "--quick", "--seed", "1")


def abilities_that_grow(checkout):
    """Those above chance at the quick demo's largest setting and not at its smallest."""

    def above_chance(setting):
        (path,) = (checkout / "evaluate/results/test").rglob(f"{setting}/*/*-results.json")
        files = read_json(path)["files"]
        return {
            name
            for name in ABILITY_NAMES
            if files[f"{name}_test"]["low"] > files[f"{name}_test"]["expected"]
        }

    return above_chance("curated-2560") - above_chance("curated-10")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Where the demo was run, and what it printed."""
    root = copy_scripts(tmp_path_factory.mktemp("demo"))
    return root, run(*QUICK_DEMO, cwd=root).stdout


@pytest.mark.slow
def test_the_demo_shows_abilities_growing(demo):
    """In its quick form; the full one differs in settings and epochs alone."""
    root, printed = demo
    assert "look at evaluate/plots/all/overview.png" in printed
    assert {point["data_type"] for point in overview(root / "evaluate/plots")} == {
        "curated-10",
        "curated-2560",
    }
    assert len(abilities_that_grow(root)) >= 3


@pytest.mark.slow
def test_the_demo_shows_no_growth_from_shuffled_answers(demo, checkout):
    """The same questions and the same answers, but not each other's."""
    sample = checkout / "data/sample"
    shutil.copytree(demo[0] / "data/sample", sample, ignore=shutil.ignore_patterns("builds"))
    for path in (checkout / "data/sample/curated/1000").glob("*.json"):
        lines = read_lines(path)
        answers = [line["messages"][-1]["content"] for line in lines]
        random.Random(path.name).shuffle(answers)
        for line, answer in zip(lines, answers, strict=True):
            line["messages"][-1]["content"] = answer
        write_lines(path, lines)
    run(*QUICK_DEMO, cwd=checkout)
    assert len(abilities_that_grow(checkout)) < 3


# Flags

# What a wrapper passes further flags on to.
BEHIND = {
    "scripts/run_train.sh": ("train/finetune.py",),
    "scripts/run_evaluate.sh": ("evaluate/run.py", "evaluate/predict.py"),
    "scripts/run_sweep.sh": ("scripts/sweep.py", "train/finetune.py", "evaluate/run.py"),
    "scripts/merge_lora.sh": ("evaluate/export.py",),
    "evaluate/cmmlu/run.sh": ("evaluate/cmmlu/run.py",),
    "evaluate/agieval/run.sh": ("evaluate/agieval/run.py",),
    "scripts/train.sbatch": ("scripts/run_train.sh", "train/finetune.py"),
}
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# A script of ours and what stands behind it, up to the end of the command.
FOLDERS = "data|train|evaluate|scripts|benchmarks"
COMMAND = re.compile(rf"(?<![\w/])((?:{FOLDERS})/[\w/]+\.(?:py|sh|sbatch))(.*)")
# Flags of pip, torchrun and others, which pages name by themselves.
OTHERS = {"--index-url", "--nnodes", "--node_rank", "--rdzv_backend", "--rdzv_endpoint"}


@functools.cache
def helped(script):
    """What a script and the scripts behind it say about their flags."""
    own = (ROOT / script).read_text(encoding="utf-8")  # test.sh and train.sbatch have no --help
    if script.endswith(".py") or script in WRAPPERS:
        own = run(script, "--help", cwd=ROOT).stdout
    return own + "".join(helped(name) for name in BEHIND.get(script, ()))


def code_of(page: Path) -> Iterator[str]:
    """Each line of a page's code blocks, and each piece of code in its text."""
    text = page.read_text(encoding="utf-8")
    parts = re.split(r"^```\w*\n(.*?)^```\n", text, flags=re.DOTALL | re.MULTILINE)
    for block in parts[1::2]:
        yield from block.replace("\\\n", " ").splitlines()
    for prose in parts[::2]:
        yield from re.findall(r"`([^`]+)`", prose)


def commands_of(page: Path) -> Iterator[tuple[str, str]]:
    """Each script of ours that a page runs, with what stands behind it."""
    for code in code_of(page):
        yield from COMMAND.findall(code.replace("\n", " "))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_scripts_and_flags_of_a_page_exist(page):
    for script, arguments in commands_of(page):
        assert (ROOT / script).is_file(), script
        for flag in FLAG.findall(arguments):
            assert re.search(rf"{flag}(?![\w-])", helped(script)), f"{script} {flag}"


def test_flags_that_pages_name_alone_exist():
    known = set(OTHERS)
    for script in [*SCRIPTS, *WRAPPERS, *BENCHMARKS, "benchmarks/gpu.sh", "scripts/test.sh"]:
        known |= set(FLAG.findall(helped(script)))
    for page in PAGES:
        for code in code_of(page):
            if code.startswith("--"):
                unknown = set(FLAG.findall(code)) - known
                assert not unknown, f"{page.relative_to(ROOT)}: {unknown}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_help(script):
    assert f"python {script}" in helped(script), "shows no command to run"


# Links and tables


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_a_page_resolve(page):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_of_docs_is_linked_from_the_readme():
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in README


def test_the_table_of_families_is_that_of_the_tests():
    import test_families
    from families import FAMILIES

    models = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    header, _, *rows = re.search(r"(\| family .*?)\n\n", models, re.DOTALL).group(1).splitlines()
    names = [name.strip(" `") for name in header.split("|")[3:-1]]
    assert len(names) == 5
    assert all(callable(getattr(test_families, name)) for name in names)
    assert [row.split("|")[2].strip(" `") for row in rows] == list(FAMILIES)
