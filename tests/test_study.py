"""A study file: read, checked, and what follows from it."""

import os
import re
from pathlib import Path

import pytest
from conftest import ROOT

from growth.core.errors import InputError
from growth.data.abilities import Ability, Kind
from growth.data.records import ability_name, evaluation_check
from growth.data.study import (
    _MARKERS,
    OF_PREDICTIONS,
    OF_RUNS,
    OF_SCORES,
    published_study,
    read_study,
    study_of,
)
from growth.scoring.results import summarise

OWN = """
name = "law"
[[abilities]]
name = "contracts"
kind = "letter"
options = ["A", "B", "C", "D", "E"]
[[abilities]]
name = "torts"
kind = "text"
[[abilities]]
name = "deadlines"
kind = "number"
[[abilities]]
name = "ethics"
kind = "choices"
out_of_domain = true
[pools.own]
path = "train"
[[series]]
name = "own"
sizes = [3, 8, 32]
take = [{ pool = "own" }]
"""


def study(tmp_path, text, name="own.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_study(path)


def test_the_published_study_is_one_file_among_many():
    found = published_study()
    assert found.source == ROOT / "data/doit.toml"
    assert len(found.in_domain) == 10
    assert len(found.out_of_domain) == 3
    assert len(found.recipes) == 19
    assert found.run.epochs_for(10) == 25
    assert found.run.epochs_for(640) == 15
    assert found.recipes["baseline"].same_as == "curated-10000"
    assert found.recipes["mix-40960"].samples == 80524
    assert found.ability_of("ceval_physician").name == "ceval_physician_fshot"


def test_equal_shares_are_nested_where_the_size_is_no_multiple(tmp_path):
    """8 lines of three abilities: 3, 3, 2; each larger size holds the smaller ones."""
    recipes = study(tmp_path, OWN).recipes
    shares = {name: {s.name: s.quota for s in r.shares} for name, r in recipes.items()}
    assert shares["own-8"] == {"contracts": 3, "torts": 3, "deadlines": 2}
    for smaller, larger in (("own-3", "own-8"), ("own-8", "own-32")):
        assert all(shares[smaller][name] <= shares[larger][name] for name in shares[smaller])
    assert sum(shares["own-32"].values()) == 32


def test_the_digest_is_of_what_a_score_means(tmp_path):
    """Titles, sizes and pools may change within a study; a kind or an option may not."""
    before = study(tmp_path, OWN).digest
    for old, new in (
        ('name = "torts"', 'name = "torts"\ntitle = "Torts"'),
        ("[3, 8, 32]", "[3, 8, 32, 128]"),
        ('path = "train"', 'path = "elsewhere"'),
    ):
        assert study(tmp_path, OWN.replace(old, new)).digest == before
    for old, new in (
        ('"text"', '"number"'),
        ('"D", "E"', '"D"'),
        ('name = "law"', 'name = "tax"'),
        ('kind = "number"', 'kind = "number"\ngold = "answer"'),
    ):
        assert study(tmp_path, OWN.replace(old, new, 1)).digest != before


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"text"', '"essay"', r"abilities\[1\].kind: .*essay.*letter, letter_set"),
        ('"number"', '"number"\nchance = 1.5', r"abilities\[2\] \(deadlines\): chance is 1.5"),
        ('"number"', '"number"\nchance = nan', r"abilities\[2\] \(deadlines\): chance is nan"),
        ('name = "torts"', 'name = "contracts"', r"abilities\[1\].name: 'contracts'.*abilities\[0"),
        ('name = "torts"', 'name = "a/b"', r"abilities\[1\].name: 'a/b'"),
        ('name = "torts"', 'name = ""', r"abilities\[1\].name: ''"),
        ('name = "torts"', 'name = "average"', r"abilities\[1\].name: 'average' is what results"),
        ('name = "torts"', 'name = "ood_average"', r"abilities\[1\].name: 'ood_average'"),
        ('name = "torts"', 'name = "t"\naliases = ["mixed"]', r"abilities\[1\].name: 'mixed'"),
        ('name = "torts"', 'name = "Contracts"', r"abilities\[1\].name: 'Contracts'.*for case"),
        ('name = "torts"', 'name = "a:b"', r"abilities\[1\].name: 'a:b': .*none of"),
        (
            'name = "torts"',
            f'name = "{"法" * 70}"',
            r"abilities\[1\].name: .*longer than 200 bytes",
        ),
        ('name = "own"', 'name = "a*"', r"series\[0\].name: 'a\*'"),
        ('name = "law"', 'name = "law"\ntitle = "a\\nb"', r"title: 'a\\nb': expected one line"),
        (
            'name = "torts"',
            'name = "t"\ntitle = "a\\u0007"',
            r"abilities\[1\] \(t\): 'a\\x07' holds",
        ),
        ('["A", "B", "C", "D", "E"]', '["\\u200b", "B"]', r"'\\u200b' holds a character"),
        ('name = "law"', 'name = "doit"', "name: 'doit' is the published study"),
        ('"number"', '"number"\nnormalise = ["case"]', r"normalise: the kind number has none"),
        ('kind = "choices"', 'kind = "choices"\ngold = "answer"', r"gold: of choices the first"),
        (
            'kind = "text"',
            'kind = "regex"\npattern = "\\b(?P<answer>a)"',
            r"pattern .*double quotes; put the pattern in single quotes",
        ),
        (
            'kind = "text"',
            'kind = "truth"\ntrue_words = ["not  so"]\nfalse_words = ["not so"]',
            r"true_words has 'not  so' and false_words 'not so', which are read as one",
        ),
        (
            '"text"',
            '"text"\nnormalise = ["accents"]',
            r"abilities\[1\].normalise\[0\]: .*accents.*expected width, case, punctuation, spaces",
        ),
        (
            'name = "own"',
            'name = "own"\nline = "--"',
            r"series\[0\].line: .*expected solid, dashed",
        ),
        (
            'path = "train"',
            'path = "a"\ntold_apart_by = "x"',
            r"told_apart_by: .*expected type, file",
        ),
        (
            "[pools.own]",
            "[run]\nepochs_by_lines = { ten = 3 }\n[pools.own]",
            "run.epochs_by_lines: Expected 'int', got 'str'",
        ),
        (
            "[pools.own]",
            'valid = "v"\n[pools.own]',
            r"abilities\[3\]: .*valid is of the whole file: put it above the first \[table\]",
        ),
        ('name = "torts"', 'nmae = "torts"', r"abilities\[1\]: .*'nmae'; expected name, kind"),
        ('name = "law"\n', "", "missing required field 'name'"),
        ('"D", "E"]', '"D", "D"]', r"abilities\[0\] \(contracts\): options"),
        ('["A", "B", "C", "D", "E"]', '["A"]', r"options are \['A'\], expected 2 to 10"),
        ('["A", "B", "C", "D", "E"]', '["A", " "]', r"options are"),
        ('kind = "text"', 'kind = "truth"', r"true_words and false_words"),
        (
            'kind = "text"',
            'kind = "truth"\ntrue_words = ["Yes"]\nfalse_words = ["ｙes"]',
            r"true_words has 'Yes' and false_words 'ｙes', which are read as one",
        ),
        (
            'kind = "text"',
            'kind = "regex"\npattern = "(a"',
            r"'\(a': no regular expression",
        ),
        ('kind = "text"', 'kind = "regex"\npattern = "(a)"', r"a group named answer"),
        (
            '"text"',
            '"text"\ngold = "generated_response"',
            r"abilities\[1\] \(torts\): gold is 'gen",
        ),
        ('"text"', '"text"\ngold = "type"', r"abilities\[1\] \(torts\): gold is 'type'"),
        ('kind = "choices"', 'kind = "choices"\nchoices = 1', r"choices is 1, expected 2 to 10"),
        ("out_of_domain = true", "out_of_domain = 1", r"abilities\[3\].out_of_domain: .*bool"),
        ('pool = "own"', 'pool = "mine"', r"series\[0\].take\[0\].pool: 'mine'.*pools: own"),
        ("[3, 8, 32]", "[3, 3]", r"series\[0\].sizes: expected different"),
        ("[3, 8, 32]", "[2]", r"series\[0\].sizes: 2: below one line for each of the 3"),
        ("[3, 8, 32]", "[]", r"series\[0\].sizes: expected"),
        ("sizes = [3, 8, 32]\n", "", r"series\[0\]: .*'sizes'"),
        (
            '{ pool = "own" }',
            '{ pool = "own", lines = 3 }',
            r"take\[0\].lines: found 3; expected",
        ),
        (
            '{ pool = "own" }',
            '{ pool = "own", lines = { ethics = 3 } }',
            r"take\[0\].lines: ethics: expected abilities",
        ),
        (
            '{ pool = "own" }',
            '{ pool = "own", lines = { torts = 3 } }',
            r"series\[0\].sizes: 8: takes 3 lines but stands at 8 on the axis",
        ),
        (
            '{ pool = "own" }',
            '{ pool = "own", lines = { torts = 4, contracts = "all" } }',
            r"series\[0\].sizes: 3: takes 4 lines or more but stands at 3",
        ),
        (
            '[{ pool = "own" }]',
            '[{ pool = "own" }, { pool = "all" }]\n[pools.all]\npath = "a"\ngathered_as = "all"',
            r"series\[0\].sizes: 3: takes 6 lines but stands at 3",
        ),
        ("[pools.own]", "[pools.own", r"not TOML: .*line"),
        ("[pools.own]", "\x00", r"not TOML: .*line"),
        ("[pools.own]", "[run]\nepochs = 0\n[pools.own]", r"run.epochs: expected whole numbers"),
    ],
)
def test_a_fault_is_named_with_its_key(tmp_path, old, new, complaint):
    assert old in OWN
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "own.toml"))) as error:
        study(tmp_path, OWN.replace(old, new, 1))
    assert re.search(complaint, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ('[[settings]]\nname = "a"\nsame_as = "b"', r"\(a -> b\): 'b' is no setting"),
        (
            '[[settings]]\nname = "a"\nsame_as = "b"\n[[settings]]\nname = "b"\nsame_as = "a"',
            r"\(a -> b -> a\): 'a' is made of itself",
        ),
        ('[[settings]]\nname = "a"\nextends = "a"\nsamples = 3', r"'a' is made of itself"),
        ('[[settings]]\nname = "own-8"\nsame_as = "own-3"', r"'own-8' is a setting of a series"),
        ('[[settings]]\nname = "a"', r"settings\[0\] \(a\): expected either same_as, or take"),
        (
            '[[settings]]\nname = "a"\ntake = [{ pool = "own", lines = { torts = 1 } }]',
            r"settings\[0\] \(a\).samples: expected",
        ),
        (
            '[[settings]]\nname = "a"\nsamples = 1\ntake = [{ pool = "own" }]',
            r"settings\[0\].take\[0\].lines: only a series",
        ),
        (
            '[[settings]]\nname = "a"\nsamples = 1\n'
            'take = [{ pool = "own", lines = { torts = 0 } }]',
            r"expected numbers above 0 or 'all'",
        ),
        (
            '[[settings]]\nname = "a"\nsamples = 999\n'
            'take = [{ pool = "own", lines = { torts = 1 } }]',
            r"settings \(a\): takes 1 lines but stands at 999 on the axis",
        ),
        (
            '[[settings]]\nname = "a"\nsamples = 9\nsame_as = "own-8"',
            r"settings \(a\): samples is 9, but own-8 has 8; leave samples out",
        ),
    ],
)
def test_lone_settings_that_cannot_be(tmp_path, settings, complaint):
    with pytest.raises(InputError) as error:
        study(tmp_path, OWN + settings)
    assert re.search(complaint, str(error.value)), str(error.value)


def test_a_file_that_is_none_is_refused(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputError, match="can't be read"):
            read_study(path)
    (tmp_path / "gbk.toml").write_bytes("name = '法律'".encode("gbk"))
    with pytest.raises(InputError, match="can't be read"):
        read_study(tmp_path / "gbk.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 10000)
    with pytest.raises(InputError, match="not TOML"):
        read_study(tmp_path / "deep.toml")


def test_the_study_of_a_run(tmp_path):
    """From its record; --study is held against it."""
    own = study(tmp_path, OWN)
    assert study_of({}, None, "r") is published_study()
    assert study_of({"study": published_study().record()}, None, "r") is published_study()
    assert study_of({"study": own.record()}, None, "r").name == "law"
    assert study_of({"study": own.record()}, own.source, "r").name == "law"
    rules = study(tmp_path, OWN.replace('"text"', '"number"'), "rules.toml")
    asks = study(tmp_path, OWN.replace('"D", "E"]', '"D"]'), "asks.toml")
    named = study(tmp_path, OWN.replace('"law"', '"tax"'), "named.toml")
    for found, accepted in ((rules, [OF_RUNS, OF_PREDICTIONS]), (asks, [OF_RUNS]), (named, [])):
        for same in (OF_RUNS, OF_PREDICTIONS, OF_SCORES):
            if same in accepted:
                study_of({"study": own.record()}, found.source, "r", same)
            else:
                with pytest.raises(InputError, match=f"runs/r: .*{found.source}"):
                    study_of({"study": own.record()}, found.source, "runs/r", same)
    with pytest.raises(InputError, match="runs/r: of the study 'doit'"):
        study_of({}, own.source, "runs/r")
    own.source.unlink()
    with pytest.raises(InputError, match="no longer there; give it with --study"):
        study_of({"study": own.record()}, None, "runs/r")


def test_chance_of_sets_of_letters():
    """comb(options, size); as published, sets of up to four letters are of A to D."""
    own = Ability("a", Kind.LETTER_SET, options=tuple("ABCDEF"))
    assert own.chance_of_set(2) == pytest.approx(1 / 15)
    published = published_study().ability_of("ethics")
    assert published.chance_of_set(2) == pytest.approx(1 / 6)
    assert published.chance_of_set(5) == pytest.approx(1 / 6)


def test_a_study_file_that_is_none_is_refused_at_once(tmp_path):
    """Neither a FIFO, which would hang, nor more than a study can have is read."""
    os.mkfifo(tmp_path / "fifo.toml")
    with pytest.raises(InputError, match=r"--study .*is a FIFO; expected a file"):
        read_study(tmp_path / "fifo.toml")
    with pytest.raises(InputError, match=r"--study .*at most 1,048,576 bytes"):
        study(tmp_path, OWN + "#" * 2**20)


@pytest.mark.parametrize("part", ["a", '"a b"', "'a.b'"])
def test_keys_of_many_parts_are_refused_at_once(tmp_path, part):
    """tomllib takes 90 s for 50,000 of them."""
    with pytest.raises(InputError, match=r"own\.toml:2: a key of over 50 parts"):
        study(tmp_path, "x = 1\n" + f"{part} . " * 50_000 + "z = 1\n")


def test_dots_in_a_text_are_no_key(tmp_path):
    title = "A title" + "." * 200 + "e.g. this" * 200
    assert study(tmp_path, f'title = "{title}"\n{OWN}').title == title


LONE = """
[[settings]]
name = "{}"
samples = 1
"""
TAKE = 'take = [{ pool = "own", lines = { torts = 1 } }]'


@pytest.mark.parametrize("step", [1, -1])
def test_settings_may_repeat_each_other_in_any_number_and_order(tmp_path, step):
    settings = [LONE.format("s0") + TAKE]
    settings += [LONE.format(f"s{i}") + f'same_as = "s{i - 1}"' for i in range(1, 2000)]
    recipes = study(tmp_path, OWN + "".join(settings[::step])).recipes
    assert recipes["s1999"].shares == recipes["s0"].shares
    assert recipes["s1999"].same_as == "s0"


def test_a_long_circle_of_settings_is_named(tmp_path):
    settings = [LONE.format(f"s{i}") + f'extends = "s{(i + 1) % 2000}"' for i in range(2000)]
    with pytest.raises(InputError, match=r"s0 -> \.\.\. -> s0\): 's0' is made of itself"):
        study(tmp_path, OWN + "".join(settings))


@pytest.mark.parametrize("marker", ["zz", "$\\\\frac$", "", "*"])
def test_markers_are_those_of_matplotlib(tmp_path, marker):
    from matplotlib.markers import MarkerStyle

    text = OWN + LONE.format("s") + TAKE + f'\nmarker = "{marker}"'
    if marker in ("", "*"):
        assert study(tmp_path, text).recipes["s"].marker == marker
    else:
        with pytest.raises(InputError, match=r"settings\[0\] \(s\)\.marker"):
            study(tmp_path, text)
    assert set(_MARKERS) <= set(MarkerStyle.markers)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('name = "law"', 'name = "law"\nvalid = "a\\nb"', "valid"),
        ('name = "law"', 'name = "law"\ntest = "a\\tb"', "test"),
        ('path = "train"', 'path = "a\\u0000b"', "pools.own.path"),
        ('take = [{ pool = "own" }]', "take = []", r"series\[0\].take"),
        ("[pools.own]", "[run]\nepochs = 2147483649\n[pools.own]", "run.epochs"),
        (
            "[pools.own]",
            "[run]\nepochs_by_lines.7 = 9999999999\n[pools.own]",
            "run.epochs_by_lines",
        ),
    ],
)
def test_values_that_fail_only_later_are_refused(tmp_path, old, new, key):
    with pytest.raises(InputError, match=f"own.toml: {key}: "):
        study(tmp_path, OWN.replace(old, new))


def test_an_ability_in_two_files_counts_once_in_the_average(tmp_path):
    """By its questions; in the published study each file counts, as published."""

    def entry(type_, score, n):
        return {"type": type_, "n": n, "score": score, "low": score, "high": score, "expected": 0.0}

    def average(found, one, two):
        files = {"a_x": entry(one, 100.0, 30), "a_y": entry(one, 0.0, 10), "b": entry(two, 0.0, 40)}
        return summarise(files, found)["average"]

    assert average(study(tmp_path, OWN), "contracts", "torts") == 37.5
    assert average(published_study(), "biology", "history") == 33.33


def test_an_alias_is_the_ability_in_training_lines_too(tmp_path):
    own = study(tmp_path, OWN.replace('name = "torts"', 'name = "torts"\naliases = ["wrongs"]'))
    assert ability_name({"type": "wrongs"}, Path("part-0.json"), own) == "torts"
    assert ability_name({}, Path("wrongs_train.json"), own, by_file=True) == "torts"
    with pytest.raises(InputError, match="no"):
        ability_name({"type": "ethics"}, Path("part-0.json"), own)


def test_a_file_that_bears_an_abilitys_whole_name_is_of_it(tmp_path):
    """Not of another one whose name it begins with; lines of such files may lack a type."""
    own = study(tmp_path, OWN.replace('name = "torts"', 'name = "contracts_old"'))
    for by_file in (True, False):
        for stem, name in (
            ("contracts_old", "contracts_old"),
            ("contracts_old_1000", "contracts_old"),
            ("contracts_1000", "contracts"),
            ("contracts", "contracts"),
        ):
            assert ability_name({}, Path(f"{stem}.json"), own, by_file) == name


def test_a_copy_of_the_published_file_may_have_other_settings_only(tmp_path):
    """Its rules are what a result is known by, and later stages look for them in data/doit.toml."""
    text = published_study().source.read_text(encoding="utf-8")
    assert study(tmp_path, text.replace("[10, 40, 160,", "[10, 40, 80, 160,", 1)).recipes
    with pytest.raises(InputError, match="give yours another name"):
        study(tmp_path, text.replace('kind = "letter"', 'kind = "text"', 1))


def test_a_lone_setting_may_take_all_there_is(tmp_path):
    own = study(
        tmp_path,
        f'{OWN}[[settings]]\nname = "a"\nsamples = 9\ntake = [{{ pool = "own", lines = "all" }}]',
    )
    shares = {share.name: share.quota for share in own.recipes["a"].shares}
    assert shares == dict.fromkeys(("contracts", "torts", "deadlines"))


@pytest.mark.parametrize("gold", ["yes", "YES", "ｙes", " yes "])
def test_a_gold_truth_counts_in_the_width_and_case_that_it_is_read_in(tmp_path, gold):
    truth = 'kind = "truth"\ntrue_words = ["yes"]\nfalse_words = ["no"]'
    own = study(tmp_path, OWN.replace('kind = "text"', truth))
    record = {
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": gold}]
    }
    evaluation_check(own)(record | {"type": "torts"})
