"""A study of one's own through every stage, with a model of a few thousand parameters."""

import json

import pytest
from conftest import copy_scripts, line, read_lines, run, write_lines

from growth.core.errors import InputError
from growth.core.files import read_json
from growth.data.abilities import Ability, Kind
from growth.model.loading import load_tokenizer
from growth.scoring.short_answers import normalised, read_label, read_pattern, read_truth
from growth.scoring.verdicts import judge

STUDY = """
name = "mine"
[run]
epochs = 1
max_length = 128
max_new_tokens = 4
[[abilities]]
name = "five"
kind = "letter"
options = ["A", "B", "C", "D", "E"]
[[abilities]]
name = "some"
kind = "letter_set"
options = ["A", "B", "C"]
[[abilities]]
name = "truth"
kind = "truth"
true_words = ["yes", "是"]
false_words = ["no", "否"]
[[abilities]]
name = "short"
kind = "text"
gold = "answer"
[[abilities]]
name = "number"
kind = "number"
[[abilities]]
name = "best"
kind = "choices"
choices = 2
[[abilities]]
name = "pattern"
kind = "regex"
pattern = '(?i)answer: *(?P<answer>\\w+)'
chance = 0.1
[[abilities]]
name = "abroad"
kind = "letter"
out_of_domain = true
[pools.own]
path = "train"
[[series]]
name = "own"
sizes = [7, 14]
take = [{ pool = "own" }]
"""
LINES = {
    "five": line("five", "E"),
    "some": line("some", "AC"),
    "truth": line("truth", "yes"),
    "short": line("short", "see the field", answer="Paris"),
    "number": line("number", "12"),
    "best": line("best", "right", 1, choices=["right", "wrong"]),
    "pattern": line("pattern", "right"),
    "abroad": line("abroad", "B"),
}
for _line in LINES.values():
    del _line["question_format"]  # follows from the kind


@pytest.fixture(scope="module")
def mine(tmp_path_factory, tiny_model):
    """A folder in which a run of this study has been built, tuned, evaluated and drawn."""
    root = copy_scripts(tmp_path_factory.mktemp("mine"))
    (root / "mine.toml").write_text(STUDY, encoding="utf-8")
    for name, example in LINES.items():
        for part, count in (("valid", 2), ("test", 3)):
            lines = [example | {"idx": i} for i in range(count)]
            write_lines(root / f"lines/{part}/{name}.json", lines)
        if name != "abroad":
            lines = [example | {"idx": i, "n": i} for i in range(3)]
            write_lines(root / f"lines/train/{name}.json", lines)
    study = ("--study", "mine.toml")
    run(*build("own-14"), cwd=root)
    run(
        *("train/finetune.py", *study, "--model_name_or_path", tiny_model),
        *("--train_dir", "data/own-14", "--valid_dir", "lines/valid", "--model_size", "tiny"),
        *("--data_type", "own-14", "--output_dir", "runs/r"),
        cwd=root,
    )
    run("evaluate/run.py", "--run_dir", "runs/r", "--data_dir", "lines", cwd=root)
    run("evaluate/plot.py", "--plot_type", "all", cwd=root)
    return root


def test_a_run_is_resumed_without_naming_its_study(mine, tiny_model):
    done = run(
        *("train/finetune.py", "--resume", "--model_name_or_path", tiny_model),
        *("--train_dir", "data/own-14", "--valid_dir", "lines/valid", "--model_size", "tiny"),
        *("--data_type", "own-14", "--output_dir", "runs/r"),
        cwd=mine,
    )
    assert "runs/r is finished" in done.stderr


def build(setting, data_dir="lines", study="mine.toml"):
    return (
        *("data/build.py", "--study", study, "--data_type", setting),
        *("--data_dir", data_dir, "--output_dir", "data"),
    )


def refused(done, *says):
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for words in says:
        assert words in done.stderr


def test_the_settings_hold_equal_shares(mine):
    run(*build("own-7"), cwd=mine)
    names = set(LINES) - {"abroad"}
    for setting, count in (("own-7", 1), ("own-14", 2)):
        built = {p.stem: read_lines(p) for p in (mine / f"data/{setting}").glob("*.json")}
        assert {name: len(lines) for name, lines in built.items()} == dict.fromkeys(names, count)
    for name in names:
        smaller, larger = (read_lines(mine / f"data/own-{n}/{name}.json") for n in (7, 14))
        assert larger[: len(smaller)] == smaller


def test_the_run_has_the_studys_defaults_and_digest(mine):
    record = read_json(mine / "runs/r/run.json")
    assert record["hyperparameters"]["epochs"] == 1
    assert record["hyperparameters"]["max_length"] == 128
    assert record["study"]["name"] == "mine"
    results = read_json(mine / "evaluate/results/test/tiny/own-14/r/checkpoint-1-results.json")
    assert results["run"]["study"] == record["study"]
    predicted = read_json(mine / "evaluate/pred-data/test/tiny/own-14/r/checkpoint-1/run.json")
    assert predicted["decoding"]["max_new_tokens"] == 4


def test_every_kind_has_its_score_and_its_chance(mine):
    results = read_json(mine / "evaluate/results/test/tiny/own-14/r/checkpoint-1-results.json")
    expected = {name: results["files"][name]["expected"] for name in LINES}
    assert expected == pytest.approx(
        {
            "five": 20,
            "some": 100 / 3,  # one of the three sets of two
            "truth": 50,
            "short": 0,
            "number": 0,
            "best": 50,
            "pattern": 10,
            "abroad": 25,
        },
        abs=0.01,
    )
    inside = [entry["score"] for name, entry in results["files"].items() if name != "abroad"]
    assert results["average"] == pytest.approx(sum(inside) / 7, abs=0.01)
    assert results["ood_average"] == results["files"]["abroad"]["score"]
    logits = read_lines(mine / "evaluate/pred-data/test/tiny/own-14/r/checkpoint-1/pred_five.json")[
        0
    ]["choice_logits"]
    assert list(logits) == ["A", "B", "C", "D", "E"]


def test_every_ability_has_its_loss(mine):
    """Whatever the kind; probabilities are where an answer is one of several."""
    measured = [m for m in read_lines(mine / "runs/r/metrics.jsonl") if "eval_loss" in m][-1]
    losses = measured["eval_loss_by_ability"]
    assert losses.keys() == LINES.keys()
    results = read_json(mine / "evaluate/results/test/tiny/own-14/r/checkpoint-1-results.json")
    assert {name: entry["loss"] for name, entry in results["files"].items()} == losses
    probable = {name for name, entry in results["files"].items() if "gold_probability" in entry}
    assert probable == {"five", "best", "abroad"}


def test_the_figures_are_of_the_study(mine):
    drawn = {path.relative_to(mine / "evaluate/plots") for path in mine.rglob("*.png")}
    assert {path.stem for path in drawn if path.parts[0] == "overall"} == {
        *(set(LINES) - {"abroad"}),
        "average",
    }
    assert {path.stem for path in drawn if path.parts[0] == "ood"} == {"abroad", "ood_average"}


def test_a_study_file_of_another_study_than_the_runs(mine):
    (mine / "other.toml").write_text(STUDY.replace('"mine"', '"other"'), encoding="utf-8")
    other = ("--study", "other.toml")
    predict = ("evaluate/predict.py", "--model_name_or_path", "runs/r/checkpoint-1")
    evaluated = ("--eval_data_path", "lines/valid")
    score = ("evaluate/score.py", "--pred_data_path", "evaluate/pred-data/test")
    for command in (
        (*predict, *evaluated, *other),
        (*score, "--results_path", "elsewhere", *other),
        ("evaluate/run.py", "--run_dir", "runs/r", "--data_dir", "lines", *other),
        ("evaluate/select_checkpoint.py", *other),
    ):
        refused(run(*command, cwd=mine, check=False), "'mine'", "other.toml", "'other'")
    plot = run("evaluate/plot.py", "--plot_type", "all", *other, cwd=mine, check=False)
    refused(plot, "left out, of the study mine")


def test_other_rules_score_the_same_predictions_again(mine):
    """A word more; figures show the scores by the rules that the file has now."""
    text = STUDY.replace('true_words = ["yes"', 'true_words = ["yes", "sure"', 1)
    (mine / "rules.toml").write_text(text, encoding="utf-8")
    rules = ("--study", "rules.toml")
    predictions = ("--pred_data_path", "evaluate/pred-data/test")
    run("evaluate/score.py", *predictions, "--results_path", "rescored", *rules, cwd=mine)
    done = run(
        *("evaluate/predict.py", "--model_name_or_path", "runs/r/checkpoint-1", *rules),
        *("--eval_data_path", "lines/valid"),
        cwd=mine,
    )
    assert "all 8 files are there" in done.stdout
    plot = ("evaluate/plot.py", "--plot_type", "overall", *rules)
    run(*plot, "--results_path", "rescored", cwd=mine)
    assert (mine / "evaluate/plots/mine/overall/truth.png").is_file()
    refused(run(*plot, cwd=mine, check=False), "scored by other rules")


def test_what_asks_otherwise_predicts_again(mine):
    text = STUDY.replace('["A", "B", "C", "D", "E"]', '["A", "E"]', 1)
    (mine / "asks.toml").write_text(text, encoding="utf-8")
    asks = ("--study", "asks.toml")
    predict = ("evaluate/predict.py", "--model_name_or_path", "runs/r/checkpoint-1", *asks)
    predict += ("--eval_data_path", "lines/valid")
    refused(run(*predict, cwd=mine, check=False), "asked otherwise than asks.toml")
    run(*predict, "--pred_data_path", "asked", cwd=mine)
    score = ("evaluate/score.py", "--pred_data_path", "evaluate/pred-data/test", *asks)
    refused(run(*score, "--results_path", "no", cwd=mine, check=False), "predict again")


def test_the_study_of_a_run_is_found_by_its_record_alone(mine):
    """And said to be gone where its file is."""
    score = ("evaluate/score.py", "--pred_data_path", "evaluate/pred-data/test")
    run(*score, "--results_path", "again", cwd=mine)
    (mine / "mine.toml").rename(mine / "moved.toml")
    try:
        refused(run(*score, "--results_path", "again", cwd=mine, check=False), "--study FILE")
        run(*score, "--results_path", "again", "--study", "moved.toml", cwd=mine)
    finally:
        (mine / "moved.toml").rename(mine / "mine.toml")


def test_results_of_another_study_are_left_out_by_name(mine, tmp_path):
    results = read_json(mine / "evaluate/results/test/tiny/own-14/r/checkpoint-1-results.json")
    own = tmp_path / "own-results.json"
    own.write_text(json.dumps(results))
    foreign = {"name": "theirs", "digest": "0" * 16, "asked": "0" * 16, "file": "theirs.toml"}
    results["run"] |= {"study": foreign, "timestamp": "other"}
    (tmp_path / "foreign-results.json").write_text(json.dumps(results))
    plot = ("evaluate/plot.py", "--plot_type", "overall", "--results_path", tmp_path)
    plot += ("--plots_path", tmp_path / "plots")
    refused(run(*plot, cwd=mine, check=False), "theirs")
    done = run(*plot, "--study", "mine.toml", cwd=mine)
    assert "foreign-results.json: left out, of the study theirs" in done.stderr


def test_two_studies_with_settings_of_one_name_never_mix(mine, tiny_model, tmp_path):
    """The same lines, weights, size and time stamp; runs lie in one place, whatever their study."""
    root = mine
    (root / "theirs.toml").write_text(STUDY.replace('"mine"', '"theirs"'), encoding="utf-8")
    study = ("--study", "theirs.toml")
    train = (
        "train/finetune.py",
        *study,
        "--model_name_or_path",
        tiny_model,
        "--model_size",
        "tiny",
    )
    train += ("--valid_dir", "lines/valid", "--data_type", "own-14")
    ours, built = ("--train_dir", "data/own-14"), ("--train_dir", "built/own-14")
    refused(
        run(*train, *ours, "--output_dir", "theirs/r", cwd=root, check=False),
        "built for the study mine, and this run is of theirs",
    )
    run(*build("own-14", study="theirs.toml")[:-1], "built", cwd=root)
    again = run(*train, *built, "--output_dir", "runs/r", "--resume", cwd=root, check=False)
    refused(again, "runs/r: of the study 'mine'", "'theirs'")
    run(*train, *built, "--output_dir", "theirs/r", cwd=root)
    weights = [root / of / "r/checkpoint-1/model.safetensors" for of in ("runs", "theirs")]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    evaluate = ("evaluate/run.py", "--run_dir", "theirs/r", "--data_dir", "lines")
    refused(run(*evaluate, cwd=root, check=False), "predictions of the study mine", "theirs.toml")
    predicted = ("--pred_data_path", tmp_path / "predictions")
    predict = ("evaluate/predict.py", "--model_name_or_path", "theirs/r/checkpoint-1", *predicted)
    run(*predict, "--eval_data_path", "lines/valid", cwd=root)
    run("evaluate/score.py", *predicted, "--results_path", tmp_path / "scored", cwd=root)

    (path,) = (tmp_path / "scored").rglob("checkpoint-1-results.json")
    together = tmp_path / "together/valid"
    for at in (together / "one/r", together / "two/r"):
        at.mkdir(parents=True)
    own = (root / "evaluate/results/valid/tiny/own-14/r/checkpoint-1-results.json").read_text()
    (together / "one/r/checkpoint-1-results.json").write_text(own)
    (together / "two/r/checkpoint-1-results.json").write_text(path.read_text())
    select = ("evaluate/select_checkpoint.py", "--results_path", together)
    run(*select, cwd=root)
    chosen = [read_json(at)["average"] for at in together.rglob("selected-checkpoint.json")]
    assert len(chosen) == 2
    results = ("--results_path", together, "--selection_path", together)
    for stage in (("plot.py", "--plot_type", "all"), ("fit.py",), ("report.py",)):
        script, *flags = stage
        done = run(f"evaluate/{script}", *flags, *results, cwd=root, check=False)
        refused(done, "results of two studies, mine", "theirs")
    (together / "one/r/checkpoint-2-results.json").write_text(path.read_text())
    refused(run(*select, cwd=root, check=False), "are of different runs", "study")


@pytest.mark.parametrize(
    ("change", "setting", "says"),
    [
        (("[7, 14]", "[7, 70]"), "own-70", "asks for 10 lines of best, but lines/train holds 3"),
        (('"train"', '"empty"'), "own-7", "lines/empty: no *.json file"),
        (('"train"', '"absent"'), "own-7", "lines/absent: no such folder"),
        (('name = "truth"', 'name = "lies"'), "own-7", "truth.json"),
        (("", ""), "own-8", "The 2 settings of bad.toml, nearest first: own-7, own-14"),
    ],
)
def test_what_a_pool_cannot_serve(mine, change, setting, says):
    (mine / "lines/empty").mkdir(exist_ok=True)
    (mine / "bad.toml").write_text(STUDY.replace(*change, 1), encoding="utf-8")
    refused(run(*build(setting, study="bad.toml"), cwd=mine, check=False), says)
    assert not (mine / "data" / setting).exists() or setting == "own-7"


def test_labels_that_the_tokenizer_cannot_tell_apart(mine, tiny_model):
    """The tiny model cuts both into pieces, of which the last ones are alike."""
    labels = 'options = ["first one", "second one"]'
    text = STUDY.replace('options = ["A", "B", "C", "D", "E"]', labels, 1)
    (mine / "labels.toml").write_text(text, encoding="utf-8")
    write_lines(mine / "labels/five.json", [line("five", "first one")])
    done = run(
        *("evaluate/predict.py", "--study", "labels.toml", "--model_name_or_path", tiny_model),
        *("--eval_data_path", "labels", "--model_size", "x", "--tag", "y"),
        cwd=mine,
        check=False,
    )
    refused(done, "first one, second one", "other options")


def test_a_label_that_tokenises_to_nothing(tiny_model, monkeypatch):
    """As where a tokenizer of whole words, without a token for unknown ones, meets one."""
    chat = load_tokenizer(str(tiny_model))
    encode = chat.content.encode
    monkeypatch.setattr(chat.content, "encode", lambda text: [] if text == "☃" else encode(text))
    assert len(chat.labels(("A", "B")).ids) == 2
    with pytest.raises(InputError, match=r"no token for '☃'.*give the study's ability other opt"):
        chat.labels(("A", "☃"))


# How the general kinds read an answer


def verdict(ability, response, gold, **fields):
    record = line(ability.name, gold, generated_response=response, **fields)
    return judge(record, ability)


def test_a_label_is_the_response_or_the_likeliest():
    logits = {"1": 0.5, "2": 2.0, "10": 1.0}
    assert read_label(" 10 ", ("1", "2", "10"), logits) == "10"
    assert read_label("the tenth", ("1", "2", "10"), logits) == "2"
    assert read_label("7", ("1", "2", "10"), logits) == "2"  # labels of two characters exist
    assert read_label("7", ("1", "2"), logits) is None


@pytest.mark.parametrize(
    ("response", "truth"),
    [
        ("Yes.", True),
        ("that is untrue", None),
        ("YES and no", None),
        ("no", False),
        ("ｙｅｓ", True),
    ],
)
def test_truth_in_words(response, truth):
    assert read_truth(response, ("yes", "true"), ("no", "false")) is truth


@pytest.mark.parametrize(
    ("words", "response", "truth"),
    [
        (("T", "F"), "Not known", None),
        (("T", "F"), "T.", True),
        (("T", "F"), "答案是F吧", False),
        (("Y", "N"), "Why?", None),
        (("sí", "no"), "así", None),
        (("sí", "no"), "noël", None),
        (("sí", "no"), "¡Sí!", True),
        (("да", "нет"), "всегда", None),
        (("да", "нет"), "Нет, никогда", False),
        (("न", "हाँ"), "ना", None),
        (("对", "错"), "这是对的", True),
        (("√", "×"), "a√b", True),
    ],
)
def test_words_of_scripts_with_spaces_are_whole(words, response, truth):
    true, false = words
    assert read_truth(response, (true,), (false,)) is truth


@pytest.mark.parametrize(
    ("response", "labels"),
    [
        ("Both A and C", "AC"),
        ("Definitely A", "A"),
        ("D. Eagle", "D"),
        ("AC", "AC"),
        ("A、C", "AC"),
        ("答案是A和C。", "AC"),
        ("选AC项", "AC"),
        ("**A**, (C)", "AC"),
        ("A and C. Because B is wrong", "ABC"),
        ("ac", ""),
    ],
)
def test_letters_of_words_are_no_labels(response, labels):
    own = Ability("s", Kind.LETTER_SET, options=tuple("ABCDE"))
    assert own.labels_in(response) == set(labels)


def test_numbers_as_labels():
    own = Ability("s", Kind.LETTER_SET, options=("1", "2", "10", "甲"))
    for response, labels in (
        ("10", {"10"}),
        ("1, 10", {"1", "10"}),
        ("110", set()),
        ("甲2", "甲2"),
    ):
        assert own.labels_in(response) == set(labels)


def test_letters_of_sets_may_touch():
    """As published: `ABD` is three labels, and longer labels are whole words."""
    assert Ability("s", Kind.DOIT_LETTER_SET).labels_in("ABD") == set("ABD")
    own = Ability("s", Kind.LETTER_SET, options=("A", "да"))
    assert own.labels_in("всегда A") == {"A"}


def test_of_two_words_at_one_place_the_longer_counts():
    assert read_truth("not true", ("true",), ("not true",)) is False


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Paris.", "paris", True),
        ("Ｐａｒｉｓ", "Paris", True),
        ("New  York", "new york", True),
        ("3.5", "35", False),
        ("-3", "3", False),
        ("《春风》", "春风", True),
        ("1, 2", "12", False),
        ("3 - 5", "35", False),
        ("3 - 5", "3–5", True),
        ("−3", "-3", True),
        ("–3", "-3", True),
        ("–3", "3", False),
        ("50 %", "50%", True),
        ("50 %", "50", False),
        ("`Paris`", "Paris", True),
        ("\u200bParis\ufeff", "Paris", True),
        ("Rome", "Paris", False),
    ],
)
def test_short_texts(one, other, same):
    steps = ("width", "case", "punctuation", "spaces")
    assert (normalised(one, steps) == normalised(other, steps)) is same
    assert (normalised(one, ()) == normalised(other, ())) is (one == other)


@pytest.mark.parametrize(
    ("response", "gold", "right"),
    [
        ("*", "*", 1),
        (" * ", "*", 1),
        ("", "*", 0),
        ("/", "*", 0),
        ("...", "Paris", 0),
        ("", "Paris", 0),
        ("C", "C#", 0),
        ("c#.", "C#", 1),
        ("50", "50%", 0),
        ("50％", "50%", 1),
        ("**Paris**", "Paris", 1),
    ],
)
def test_signs_that_are_the_answer_or_belong_to_it(response, gold, right):
    assert verdict(Ability("t", Kind.TEXT), response, gold).score == right


def test_a_pattern_reads_its_group():
    pattern = r"(?i)answer: *(?P<answer>\w+)"
    assert read_pattern("I think.\nAnswer: B, as", pattern) == "B"
    assert read_pattern("B", pattern) is None
    long = "a" * 50_000
    assert read_pattern(long, r"(a*)*(?P<answer>b)") is None  # at once


def test_a_gold_answer_is_read_by_the_pattern_too():
    ability = Ability("r", Kind.REGEX, pattern=r'"label": *"(?P<answer>[a-z]+)"')
    assert verdict(ability, '{"label": "bug"}', '{"label":"bug"}').score == 1
    assert verdict(ability, '{"label": "bug"}', "bug").score == 1
    assert verdict(ability, '{"label": "bug"}', '{"label": "idea"}').score == 0


@pytest.mark.parametrize(
    ("response", "gold", "right"),
    [
        (r"so \sqrt{2}", r"\sqrt{2}", 1),
        (r"It is a \sqrt{2} m.", r"\sqrt{2}", 1),
        (r"所以\sqrt{8}。", r"2\sqrt{2}", 1),
        (r"(thus x = \frac{\sqrt{8}}{2})", r"\sqrt{2}", 1),
        (r"with $x$ given: **\sqrt{2}**", r"\sqrt{2}", 1),
        (r"\[x\] is \frac{3}{4}\pi", r"\frac{3\pi}{4}", 1),
        (r"so 2^{10}", "1024", 1),
        (r"so \frac12", "1/2", 1),
        ("so 2√3", r"\sqrt{12}", 1),
        ("so √(2)", "√2", 1),
        ("therefore π/2", r"\frac{\pi}{2}", 1),
        (r"so \sqrt{3}", r"\sqrt{2}", 0),
        (r"\sqrt{2} = 1.414 or \sqrt{3}", r"\sqrt{2}", 0),
        (r"not $\sqrt{2}$ but \boxed{2}", r"\sqrt{2}", 0),
        (r"so -\sqrt{2}", r"\sqrt{2}", 0),
        ("so 12 and \\alpha", "12", 1),
    ],
)
def test_latex_needs_no_dollars(response, gold, right):
    assert verdict(Ability("n", Kind.NUMBER), response, gold).score == right


def test_numbers_are_compared_as_mathematics():
    ability = Ability("n", Kind.NUMBER)
    assert verdict(ability, "so it is $\\frac{1}{2}$", "0.5").score == 1
    assert verdict(ability, "13", "12").score == 0


NUMBERS = [r"\sqrt{2}", "2^{10}", "x^2+1", r"\pi", "(1,2)", "1e3", "½", "１２", "12元", "12.", "−3"]


@pytest.mark.parametrize("gold", [*NUMBERS, "1 234", "10²", "3/4", "50%", "5°", "∞"])
def test_a_gold_number_repeated_is_right(gold):
    ability = Ability("n", Kind.NUMBER)
    assert verdict(ability, gold, gold).score == 1
    assert verdict(ability, f"The answer is {gold}.", gold).score == 1


@pytest.mark.parametrize(
    ("response", "gold", "right"),
    [
        ("12", "12元", 1),
        ("1,234", "1 234", 1),
        ("1000", "1e3", 1),
        ("1e3", "1000", 1),
        ("0.5", "½", 1),
        ("½", "0.5", 1),
        ("1½", "1.5", 1),
        ("so 1 1/2 hours", "1.5", 1),
        ("3/2", "1 ½", 1),
        ("-1 1/2", "-1.5", 1),
        ("1½", "5.5", 0),
        ("1 1/2", "1/2", 0),
        ("2 1/2", "21/2", 0),
        ("-3", "−3", 1),
        ("3", "−3", 0),
        ("12", "1 2", 0),
        ("12 3", "123", 0),
        ("102", "10²", 0),
        ("(2,1)", "(1,2)", 0),
        ("5", "50%", 0),
    ],
)
def test_both_sides_of_a_number_are_read_alike(response, gold, right):
    assert verdict(Ability("n", Kind.NUMBER), response, gold).score == right


def test_sets_of_labels():
    ability = Ability("s", Kind.LETTER_SET, options=("A", "B", "none of them"))
    assert verdict(ability, "Well.\nB and A", "AB").score == 1
    assert verdict(ability, "none of them", "none of them").score == 1
    assert verdict(ability, "A", "AB").score == 0


def test_a_stated_chance_counts():
    ability = Ability("t", Kind.TEXT, chance=0.2)
    assert verdict(ability, "x", "y").expected == 0.2
