"""The README's commands: what it shows can be run, and its flags exist."""

import random
import re
import shlex

import pytest
from conftest import ROOT, read_lines, run, write_lines

from growth.core.files import read_json
from growth.data.abilities import ABILITY_NAMES

README = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST_SCREEN, STAGES = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
ON_REAL_MODELS = re.search(r"```sh\n(.*?)```", README, re.DOTALL).group(1)


def commands(block):
    return [shlex.split(line, comments=True) for line in block.strip().splitlines()]


def script_of(command):
    assert command[0] in ("bash", "python"), command
    return command[1]


def test_the_first_screen_is_the_two_commands():
    assert [script_of(c) for c in commands(FIRST_SCREEN)] == ["scripts/demo.sh", "scripts/test.sh"]


def test_the_stages_run_as_they_stand(checkout):
    for command in commands(STAGES):
        run(*command, cwd=checkout)
    assert (checkout / "evaluate/plots/all/overview.png").stat().st_size > 10_000


# At seed 1 three abilities grow by a wide margin (LOG.md), which another CPU's rounding won't undo.
QUICK_DEMO = ("scripts/demo.sh", "--quick", "--seed", "1")


def abilities_that_grow(checkout):
    """Those above guessing at the quick demo's largest setting and not at its smallest."""

    def above_guessing(setting):
        (path,) = (checkout / "evaluate/results/test").rglob(f"{setting}/*/*-results.json")
        files = read_json(path)["files"]
        return {
            name
            for name in ABILITY_NAMES
            if files[f"{name}_test"]["low"] > files[f"{name}_test"]["expected"]
        }

    return above_guessing("curated-2560") - above_guessing("curated-10")


def test_the_demo_shows_abilities_growing(checkout):
    """In its quick form; the full one differs in settings and epochs alone."""
    done = run(*QUICK_DEMO, cwd=checkout)
    assert "look at evaluate/plots/all/overview.png" in done.stdout
    assert (checkout / "evaluate/plots/all/overview.png").stat().st_size > 10_000
    assert len(abilities_that_grow(checkout)) >= 3


def test_the_demo_shows_no_growth_from_shuffled_answers(checkout):
    """The same questions and the same answers, but not each other's."""
    run("data/make_sample.py", "--output_dir", "data/sample", cwd=checkout)
    for path in (checkout / "data/sample/curated/1000").glob("*.json"):
        lines = read_lines(path)
        answers = [line["messages"][-1]["content"] for line in lines]
        random.Random(path.name).shuffle(answers)
        for line, answer in zip(lines, answers, strict=True):
            line["messages"][-1]["content"] = answer
        write_lines(path, lines)
    run(*QUICK_DEMO, cwd=checkout)
    assert len(abilities_that_grow(checkout)) < 3


@pytest.mark.parametrize("command", commands(ON_REAL_MODELS), ids=script_of)
def test_flags_of_the_other_commands_exist(command):
    script = script_of(command)
    helped = run(*command[:2], "--help", cwd=ROOT).stdout
    if script == "scripts/run_train.sh":
        helped += run("train/finetune.py", "--help", cwd=ROOT).stdout
    for flag in (word for word in command if word.startswith("--")):
        assert flag in helped, f"{script} {flag}"


def test_every_script_has_help():
    scripts = [p for d in ("data", "train", "evaluate") for p in (ROOT / d).rglob("*.py")]
    scripts.remove(ROOT / "evaluate/harness/doit.py")  # lm-evaluation-harness runs it
    assert len(scripts) >= 8
    for script in scripts:
        text = run(script, "--help", cwd=ROOT).stdout
        assert f"python {script.relative_to(ROOT)}" in text, f"{script}: shows no command to run"


WRAPPERS = sorted({p.name for p in (ROOT / "scripts").glob("*.sh")} - {"common.sh", "test.sh"})


@pytest.mark.parametrize("name", WRAPPERS)
def test_every_wrapper_has_help(name):
    assert f"bash scripts/{name}" in run(f"scripts/{name}", "--help", cwd=ROOT).stdout


def test_files_that_the_readme_names_exist():
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / path).is_file(), path


def test_the_table_of_families_is_that_of_the_tests():
    import test_families
    from families import FAMILIES

    header, _, *rows = re.search(r"(\| family .*?)\n\n", README, re.DOTALL).group(1).splitlines()
    names = [name.strip(" `") for name in header.split("|")[3:-1]]
    assert len(names) == 5
    assert all(callable(getattr(test_families, name)) for name in names)
    assert [row.split("|")[2].strip(" `") for row in rows] == list(FAMILIES)
