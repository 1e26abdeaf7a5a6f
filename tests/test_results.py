"""results/: the published figures and tables are made from the copies beside them."""

import re
import shlex
import shutil

import pytest
from conftest import ROOT, run

STUDIES = sorted(page.parent.relative_to(ROOT) for page in ROOT.glob("results/*/README.md"))
COPIES = ("test", "valid", "runs", "benchmarks")  # what evaluate/publish.py writes
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?")


def commands(page):
    """Those of the section that makes figures and tables, as lists of words."""
    block = re.search(r"## From the results to figures.*?```sh\n(.*?)```", page, re.DOTALL)
    assert block
    return [shlex.split(line) for line in block[1].replace("\\\n", " ").splitlines()]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_figures_and_tables_are_made_again_from_the_copies(study, tmp_path):
    for part in (name for name in COPIES if (ROOT / study / name).is_dir()):
        shutil.copytree(ROOT / study / part, tmp_path / study / part)
    for python, script, *flags in commands((ROOT / study / "README.md").read_text("utf-8")):
        assert python == "python"
        run(ROOT / script, *flags, cwd=tmp_path)
    published = {
        path.relative_to(ROOT)
        for path in (ROOT / study).rglob("*")
        if path.is_file() and path.parent != ROOT / study and path.suffix != ".lock"
    }
    assert published == {
        path.relative_to(tmp_path)
        for path in tmp_path.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
    tables = [path for path in published if path.suffix in (".csv", ".json")]
    made = [path for path in tables if path.relative_to(study).parts[0] not in COPIES]
    assert made
    for path in made:
        ours, theirs = ((root / path).read_text("utf-8") for root in (tmp_path, ROOT))
        assert NUMBER.sub("#", ours) == NUMBER.sub("#", theirs), path
        # Sums are rounded in another order on another CPU.
        found, expected = (list(map(float, NUMBER.findall(text))) for text in (ours, theirs))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6), path
