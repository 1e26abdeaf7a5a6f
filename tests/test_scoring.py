"""Scores against recorded verdicts, and what the published scorer got wrong."""

import json
import math

import pytest
from conftest import ABILITY_NAMES, ROOT, STUDY, judged, line, read_lines, run, write_lines

from growth.core.errors import InputError
from growth.core.files import read_json, write_json
from growth.core.intervals import wilson
from growth.data.abilities import LETTERS
from growth.scoring.checkpoint_selection import choose_checkpoints, description
from growth.scoring.results import _lacking, score_file, score_predictions, summarise
from growth.scoring.verdicts import Verdict

# Lines in the repository and in ../shared: the longer texts there are not ours to copy.
RECORDED = {"scoring": {1200}, "scoring_adversarial": {1827, 1905}}


@pytest.mark.parametrize("name", RECORDED)
def test_all_recorded_verdicts_through_the_script(golden, name, checkout):
    facts = read_lines(golden / f"{name}.jsonl")
    write_lines(checkout / "in/pred_recorded.json", [fact["sample"] for fact in facts])
    run("evaluate/score.py", "--pred_data_path", "in", "--results_path", "out", "--details",
        cwd=checkout)  # fmt: skip
    details = read_lines(checkout / "out/in-details/recorded.jsonl")
    assert len(details) == len(facts)
    assert len(facts) in RECORDED[name]
    for ours, fact in zip(details, facts, strict=True):
        assert ours["score"] == fact["score"], fact["sample"]
        assert ours["expected"] == pytest.approx(fact["expected"], abs=1e-6), fact["sample"]
    entry = json.loads((checkout / "out/in-results.json").read_text())["files"]["recorded"]
    right = sum(fact["score"] for fact in facts)
    assert entry["score"] == pytest.approx(100 * right / len(facts), abs=0.01)


LOGITS = {"A": 0.0, "B": 3.0, "C": 1.0, "D": 2.0}


@pytest.mark.parametrize(
    ("type_", "gold", "response", "score"),
    [
        ("biology", "A", " A\n", 1),
        ("biology", "A", "B", 0),
        ("biology", "A", "E", 0),  # one character that is no letter: wrong, no falling back
        ("biology", "B", "", 1),  # falls back on the logits
        ("biology", "B", "答案是A", 1),
        ("ceval_physician", "B", "??", 1),
        ("chinese", "春风", "春风", 1),
        ("chinese", "春风", "答：春风", 0),  # the first run is 答：
        ("chinese", "春风", "“春风”", 0),  # the closing mark belongs to the run
        ("chinese", "春风", "春风 。", 1),  # white space ends the run, as do its marks
        ("chinese", "春风。", "春风。 好", 1),
        ("chinese", "春风", "abc", 0),
        ("history", "正确", "对。", 1),
        ("history", "F", "×", 1),
        ("history", "错误", "正确还是错误", 0),
        ("history", "正确", "不知道", 0),
        ("ethics", "ABD", "理由\nDBA\n\n", 1),
        ("ethics", "ABD", "ABD\n理由A", 0),
        ("ethics", "A", "", 0),
    ],
)
def test_reading_rules(type_, gold, response, score):
    record = line(type_, gold, generated_response=response, choice_logits=LOGITS)
    assert judged(record).score == score


@pytest.mark.parametrize(
    ("ppl", "score"), [([1.0, 2.0, 3.0], 1), ([2.0, 2.0, 3.0], 0), ([2.0, 1.0, 3.0], 0)]
)
def test_a_tie_in_perplexity_is_wrong(ppl, score):
    verdict = judged(line("code", "甲", 1, choices=["甲", "乙", "丙"], generated_ppl=ppl))
    assert (verdict.score, verdict.expected) == (score, pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("letters", "expected"), [("A", 1 / 4), ("AB", 1 / 6), ("ABCD", 1), ("ABCDE", 1 / 6)]
)
def test_ethics_chance(letters, expected):
    assert judged(line("ethics", letters, generated_response="")).expected == pytest.approx(
        expected
    )


def test_chance_of_a_question_with_three_options():
    three = line("understanding", "A", generated_response="A", choice_logits=LOGITS)
    assert judged(three).expected == 0.25
    three["messages"][0]["content"] = "对话\n问题\nA. 甲\nB. 乙\nC. 丙"
    assert judged(three).expected == 0.33


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("问题\nA. 甲\nB. 乙\nC. 丙\nD. 丁", 0.25),
        ("问题\nA.甲\nB.乙\nC.丙\nD.丁", 0.25),
        ("问题\nA．甲\nB．乙\nC．丙\nD．丁", 0.33),  # published quirk: only a full stop of ASCII
        ("问题\nA、甲\nB、乙\nC、丙\nD、丁", 0.33),
        ("A. 甲\nB. 乙\nC. 丙\nD. 丁", 0.33),  # nothing before the first option
        ("问题\nA. 甲\n甲\nB. 乙\nC. 丙\nD. 丁", 0.33),  # an option on two lines
        ("问题\nDo it\nA. 甲\nB. 乙\nC. 丙", 0.33),
    ],
)
def test_four_options_are_seen_as_published(question, expected):
    record = line("understanding", "A", generated_response="A", choice_logits=LOGITS)
    record["messages"][0]["content"] = question
    assert judged(record).expected == expected


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # by the formula, worked by hand; 0 and all stay inside [0, 1]
    [(43, 100, 0.3373, 0.5278), (0, 100, 0.0, 0.0370), (100, 100, 0.9630, 1.0), (1, 1, 0.2065, 1)],
)
def test_wilson(successes, n, low, high):
    assert wilson(successes, n) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_averages_keep_the_ten_abilities_and_the_ood_sets_apart():
    def entry(type_, rights, n=4):
        records = [
            line(type_, "A", generated_response="A" if i < rights else "C", choice_logits=LOGITS)
            for i in range(n)
        ]
        return score_file((record, judged(record)) for record in records)

    files = {
        "biology_test": entry("biology", 1),
        "reasoning_test": entry("reasoning", 3),
        "ceval_physician": entry("ceval_physician", 4),
    }
    summary = summarise(files, STUDY)
    assert summary["average"] == 50.0  # the published code divided by twice the number of files
    assert summary["ood_average"] == 100.0
    assert summary["overall"] == pytest.approx(66.67)
    assert summary["expected_average"] == summary["expected_overall"] == 25.0
    assert summary["average_low"] < 50 < summary["average_high"]
    assert len(files["biology_test"].pop("digest")) == 16
    assert files["biology_test"] == {
        "type": "biology", "n": 4, "score": 25.0, "low": 4.56, "high": 69.94, "expected": 25.0,
        "extracted": 25.0, "extracted_low": 4.56, "extracted_high": 69.94,
        "gold_probability": 3.21, "gold_probability_n": 4,
        "gold_probability_low": 3.21, "gold_probability_high": 3.21,
    }  # fmt: skip


def test_math_verify_stands_in_a_column_of_its_own():
    records = [
        line("math", "答案\n$10$", answer="10", generated_response=response)
        for response in ("答案 $10$", "答案 $10.0$", "答案 $11$", "不会")
    ]
    entry = score_file((record, judged(record)) for record in records)
    assert entry["score"] == 25.0  # the published rule: 10.0 is not 10
    assert entry["math_verify"] == 50.0
    assert entry["math_verify_low"] < 50 < entry["math_verify_high"]


def test_a_line_over_the_bound_has_no_second_opinion_and_is_counted(tmp_path, capsys):
    """The library alone takes hours; the lines before and after keep theirs."""
    responses = ("答案 $10$", "答案 $9^{9^{9^{9}}}$", "答案 $11$")
    write_lines(
        tmp_path / "in/pred_math_valid.json",
        [
            line("math", "答案\n$10$", answer=gold, generated_response=response)
            for gold, response in zip(("10", "\\pi", "10"), responses, strict=True)
        ],
    )
    done = run(ROOT / "evaluate/score.py", "--pred_data_path", "in", "--results_path", "out",
               "--details", cwd=tmp_path)  # fmt: skip
    entry = read_json(tmp_path / "out/in-results.json")["files"]["math_valid"]
    assert entry["n"] == 3
    assert entry["over_bound"] == 1
    assert entry["score"] == pytest.approx(33.33)
    assert entry["math_verify"] == entry["extracted"] == 50.0  # of the other two
    assert "no second opinion on 1 math answers" in done.stdout + done.stderr
    assert "verify: 1 of the 3 answers of math_valid are not in it" in done.stdout
    details = read_lines(tmp_path / "out/in-details/math_valid.jsonl")
    assert [detail.get("math_verify") for detail in details] == [1, None, 0]
    assert [detail.get("over_bound") for detail in details] == [None, True, None]


def test_every_letter_can_win_by_its_logit():
    for letter in LETTERS:
        logits = dict.fromkeys(LETTERS, 0.0) | {letter: 1.0}
        assert judged(line("biology", letter, generated_response="", choice_logits=logits)).score


def softmax(*logs):
    weights = [math.exp(log) for log in logs]
    return weights[0] / sum(weights)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (line("biology", "B", generated_response="A", choice_logits=LOGITS), softmax(3, 0, 1, 2)),
        (line("chinese", "B", generated_response="?", choice_logits=LOGITS), softmax(3, 0, 1, 2)),
        # the mean log-likelihood of a token of each choice; the gold one is the first
        (line("code", choices=list("abc"), question_format=1, generated_ppl=[2.0, 4.0, 8.0]),
         softmax(-math.log(2), -math.log(4), -math.log(8))),
        (line("code", choices=list("abc"), question_format=1, generated_ppl=[1e304, 1.0, 9.0]), 0),
        (line("code", choices=list("abc"), question_format=1, generated_ppl=[0, 1.0, 9.0]), None),
        (line("biology", "A", generated_response="A",
              choice_logits={"A": 10**400, "B": 0.5, "C": -(10**400), "D": 5}), 1),
        (line("biology", "A", generated_response="A",
              choice_logits={"A": -(10**400), "B": 1e308, "C": 0, "D": 1}), 0),
        # answers that are not one of several
        (line("chinese", "春风", generated_response="春风", choice_logits=LOGITS), None),
        (line("history", "正确", generated_response="对", choice_logits=LOGITS), None),
        (line("ethics", "ABD", generated_response="ABD", choice_logits=LOGITS), None),
        (line("math", "$1$", answer="1", generated_response="1", choice_logits=LOGITS), None),
    ],
)  # fmt: skip
def test_the_probability_of_the_gold_answer(record, expected):
    found = judged(record).gold_probability
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-9))


def test_the_mean_probability_is_that_of_the_lines_that_have_one():
    """The interval is Student's: of .2, .4 and .6 it is .4 -+ 4.303 * .2 / sqrt(3)."""
    lines = [(line("chinese"), Verdict(0, 0.25, None, None, gold_probability=p))
             for p in (0.2, None, 0.4, 0.6)]  # fmt: skip
    entry = score_file(lines)
    assert (entry["gold_probability"], entry["gold_probability_n"], entry["n"]) == (40.0, 3, 4)
    assert entry["gold_probability_low"] == 0.0  # -9.68 of a per cent
    assert entry["gold_probability_high"] == pytest.approx(89.68, abs=0.01)
    single = score_file(lines[:1])
    assert single["gold_probability"] == 20.0
    assert "gold_probability_low" not in single
    assert "gold_probability" not in score_file(lines[1:2])


def test_the_loss_of_an_ability_is_that_of_the_record(tmp_path, capsys):
    record = {"checkpoint": "checkpoint-1", "eval_loss_by_ability": {"biology": 1.23456789}}
    write_json(tmp_path / "in/run.json", record)
    for ability in ("biology", "history"):
        told = line(ability, "A", generated_response="A", choice_logits=LOGITS)
        write_lines(tmp_path / f"in/pred_{ability}_test.json", [told])
    run(ROOT / "evaluate/score.py", "--pred_data_path", "in", "--results_path", "out", cwd=tmp_path)
    files = read_json(tmp_path / "out/in-results.json")["files"]
    assert files["biology_test"]["loss"] == 1.23456789
    assert "loss" not in files["history_test"]


def test_results_mirror_the_folders_of_predictions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = line("biology", "A", generated_response="A", choice_logits=LOGITS)
    for place in ("pred-data/valid/7b/a", "pred-data/valid/7b/b"):
        write_lines(tmp_path / "evaluate" / place / "pred_biology_valid.json", [record])
    lines = []
    scored = score_predictions(tmp_path / "evaluate/pred-data/valid", report=lines.append)
    places = [f"evaluate/results/valid/7b/{name}-results.json" for name in "ab"]
    assert [str(one.path) for one in scored] == places
    assert [read_json(one.path) for one in scored] == [one.results for one in scored]
    assert len(lines) == 2
    assert "average 100.00 [20.65, 100.00], chance 25.00" in lines[0]
    (one,) = score_predictions(tmp_path / "evaluate/pred-data/valid/7b/a", details=True)
    assert one == scored[0]
    assert read_lines(tmp_path / "evaluate/results/valid/7b/a-details/biology_valid.jsonl") == [
        {"score": 1, "expected": 0.25, "parsed": "A", "gold": "A"}
        | {"extracted": 1, "extracted_answer": "A"}
        | {"gold_probability": pytest.approx(0.032059, abs=1e-6)}
        | {"idx": 0, "question": "dee55f889d3f0bea", "passages": []}
    ]
    with pytest.raises(InputError, match="no pred_"):
        score_predictions(tmp_path / "evaluate/results")


def valid_results(folder, epoch, average, limit=None, n=4, **more):
    run = {"model_size": "7b", "data_type": "curated-10", "timestamp": "t0", "limit": limit}
    run |= {"checkpoint": f"checkpoint-{epoch}", "step": epoch, "epoch": epoch, "epochs": 8} | more
    scores = {"average": average, "average_low": average - 5, "average_high": average + 5}
    name = f"checkpoint-{epoch}" + (f"-limit{limit}" if limit else "")
    entry = {"type": "biology", "n": n, "score": average, "expected": 25.0}
    content = {"run": run, "files": {"biology_valid": entry}} | scores
    write_json(folder / f"{name}-results.json", content)


def test_the_best_from_the_fifth_epoch_on_is_chosen_ties_to_the_earlier(tmp_path, capsys):
    folder = tmp_path / "7b/curated-10/t0"
    for epoch, average in ((4, 90.0), (5, 40.0), (6, 41.0), (7, 41.0), (8, 39.0)):
        valid_results(folder, epoch, average)
    valid_results(folder, 8, 70.0, limit=2)
    write_json(tmp_path / "untuned-results.json", {"run": {}, "files": {}})
    limited, whole = sorted(choose_checkpoints(tmp_path).chosen, key=lambda choice: choice["step"])[
        ::-1
    ]
    assert (whole["checkpoint"], whole["average"], whole["limit"]) == ("checkpoint-6", 41.0, None)
    assert [candidate["step"] for candidate in whole["candidates"]] == [5, 6, 7, 8]
    assert (limited["checkpoint"], limited["limit"]) == ("checkpoint-8", 2)
    assert read_json(folder / "selected-checkpoint.json") == whole
    assert read_json(folder / "selected-checkpoint-limit2.json") == limited
    assert "untuned-results.json: not a checkpoint of one of our runs" in capsys.readouterr().err


def test_checkpoints_scored_on_different_files_are_not_compared(tmp_path):
    valid_results(tmp_path, 5, 40.0)
    valid_results(tmp_path, 6, 41.0, n=3)
    with pytest.raises(InputError, match="scored on different files"):
        choose_checkpoints(tmp_path).check()


def test_the_digest_is_of_the_lines_and_not_of_what_was_predicted():
    def entry(**fields):
        records = [line("biology", "A", choice_logits=LOGITS, **fields)]
        return score_file((record, judged(record)) for record in records)

    one = entry(generated_response="A")
    assert entry(generated_response="B")["digest"] == one["digest"]
    assert entry(generated_response="A", extra="x")["digest"] != one["digest"]


def test_checkpoints_scored_on_other_lines_of_one_number_are_not_compared(tmp_path):
    for epoch in (5, 6):
        valid_results(tmp_path, epoch, 40.0)
        path = tmp_path / f"checkpoint-{epoch}-results.json"
        results = read_json(path)
        results["files"]["biology_valid"]["digest"] = f"lines of {epoch}"
        write_json(path, results)
    with pytest.raises(InputError, match="scored on different files"):
        choose_checkpoints(tmp_path).check()


def test_a_run_without_a_candidate_does_not_stop_the_others(tmp_path):
    for name, epochs in (("a", (6,)), ("b", (2,)), ("c", (5, 7)), ("d", (6,))):
        for epoch in epochs:
            valid_results(tmp_path / name, epoch, 40.0)
    results = read_json(tmp_path / "d/checkpoint-6-results.json")
    del results["average"]  # only OOD sets were scored
    write_json(tmp_path / "d/checkpoint-6-results.json", results)
    done = run(ROOT / "evaluate/select_checkpoint.py", "--results_path", tmp_path, cwd=tmp_path,
               check=False)  # fmt: skip
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr.startswith("error: no checkpoint chosen in 2 of 4 runs: ")
    assert f"{tmp_path / 'b'}: no result from epoch 5 on" in done.stderr
    assert f"{tmp_path / 'd'}: no file of an ability of the study" in done.stderr
    chosen = {path.parent.name for path in tmp_path.rglob("selected-checkpoint.json")}
    assert chosen == {"a", "c"}


def test_the_score_of_a_choice_among_several_is_called_optimistic(tmp_path, capsys):
    valid_results(tmp_path / "one", 6, 40.0)
    for epoch in (5, 6, 7):
        valid_results(tmp_path / "three", epoch, 40.0)
    (one, three) = sorted(choose_checkpoints(tmp_path).chosen, key=lambda c: len(c["candidates"]))
    assert (one["average_low"], one["average_high"]) == (35.0, 45.0)
    assert "optimistic" not in description(one)
    assert three["average"] == 40.0
    assert (three["average_low"], three["average_high"]) == (None, None)
    assert "optimistic" in three["average_note"]
    assert "report the test score" in description(three)


def test_predictions_that_lost_their_last_line_are_refused(tmp_path):
    lines = [line("biology", "A", generated_response="A", choice_logits=LOGITS) for _ in range(3)]
    path = write_lines(tmp_path / "in/c/pred_biology.json", lines)
    write_json(path.parent / "run.json", {"lines": {"biology": 3}})
    assert score_predictions(tmp_path / "in", tmp_path / "out")[0].results["files"]
    write_lines(path, lines[:-1])
    said = r"pred_biology.json: holds 2 lines, 3 were predicted; remove it"
    with pytest.raises(InputError, match=said):
        score_predictions(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("seed", (0, 3)),
        ("epochs", (8, 12)),
        ("samples", (10, 999)),
        ("split", ("valid", "test")),
        ("timestamp", ("t0", "t1")),
        ("study", [{"name": "x", "digest": digest, "asked": "b", "file": "a"} for digest in "12"]),
    ],
)
def test_results_of_two_runs_in_one_folder_are_not_chosen_among(tmp_path, field, values):
    for epoch, value in zip((5, 6), values, strict=True):
        valid_results(tmp_path, epoch, 40.0, **{field: value})
    with pytest.raises(InputError, match=rf"are of different runs \({field} .* and .*\); give"):
        choose_checkpoints(tmp_path).check()


def test_what_older_results_do_not_say_makes_no_other_run(tmp_path):
    valid_results(tmp_path, 5, 40.0)
    valid_results(tmp_path, 6, 41.0, seed=0, split="valid", decoding={"precision": "fp32"})
    assert choose_checkpoints(tmp_path).chosen[0]["checkpoint"] == "checkpoint-6"


WAYS = [{"precision": "fp32", "max_new_tokens": 1024}, {"precision": "bf16", "max_new_tokens": 4}]


def test_checkpoints_predicted_in_different_ways_are_not_compared(tmp_path):
    for epoch, decoding in zip((5, 6), WAYS, strict=True):
        valid_results(tmp_path, epoch, 40.0, decoding=decoding)
    said = r"checkpoint-5-.*max_new_tokens 1024 and 4, precision fp32 and bf16\); predict"
    with pytest.raises(InputError, match=said):
        choose_checkpoints(tmp_path).check()
    valid_results(tmp_path, 6, 40.0, decoding=WAYS[0] | {"full_responses": True})
    assert choose_checkpoints(tmp_path).chosen  # no score depends on it


def test_two_results_of_one_checkpoint_are_not_chosen_among(tmp_path):
    valid_results(tmp_path, 6, 40.0)
    copy = tmp_path / "checkpoint-6 copy-results.json"
    copy.write_text((tmp_path / "checkpoint-6-results.json").read_text().replace("40.0", "90.0"))
    with pytest.raises(InputError, match="are both results of step 6; remove one of them"):
        choose_checkpoints(tmp_path).check()


def test_a_choice_says_the_split_and_the_epochs_without_a_result(tmp_path):
    for epoch in (5, 7):
        valid_results(tmp_path / "a", epoch, 40.0, split="test", epochs=15)
    (choice,) = choose_checkpoints(tmp_path).chosen
    assert choice["reason"].startswith("best mean test score")
    assert choice["not_scored"] == [[6, 6], [8, 15]]
    said = description(choice)
    assert "without a result: epoch 6, 8 to 15" in said
    assert "selected on test, whose score is no fair estimate" in said
    for epoch in range(5, 9):
        valid_results(tmp_path / "b", epoch, 40.0)
    whole = choose_checkpoints(tmp_path / "b").chosen[0]
    assert "not_scored" not in whole
    assert whole["reason"].startswith("best mean valid score")
    assert "epoch 5 on, ties to the earlier; optimistic" in description(whole)


def change_run(field, value):
    def change(text):
        results = json.loads(text)
        results["run"][field] = value
        return json.dumps(results)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        change_run("epoch", None),
        change_run("step", None),
        change_run("epoch", "6"),
        change_run("epochs", 2.5),
        lambda _: "[]",
        lambda _: "{}",
        lambda text: text[:200],
        lambda text: text.replace('"files"', '"filez"'),
    ],
)
def test_a_damaged_results_file_stops_no_other_choice(tmp_path, damage):
    for name in "ab":
        for epoch in (5, 6):
            valid_results(tmp_path / name, epoch, 40.0)
    path = tmp_path / "a/checkpoint-6-results.json"
    path.write_text(damage(path.read_text()))
    choices = choose_checkpoints(tmp_path)
    assert len(choices.chosen) == 1
    with pytest.raises(
        InputError, match=r"no checkpoint chosen in 1 of 2 runs: .*checkpoint-6-res"
    ):
        choices.check()
    assert [p.parent.name for p in tmp_path.rglob("selected-checkpoint.json")] == ["b"]


def write_predictions(folder, stray=0):
    """Predictions of two abilities, `stray` of biology's 4 lines typed as reasoning."""
    types = ["reasoning"] * stray + ["biology"] * (4 - stray)
    for stem, of_lines in (("biology_test", types), ("reasoning_test", ["reasoning"] * 4)):
        lines = [line(type_, idx=i, generated_response="A") for i, type_ in enumerate(of_lines)]
        for place, record in enumerate(lines):
            record["messages"][0]["content"] += f"\n{stem}{place}"
            record["choice_logits"] = LOGITS
        write_lines(folder / f"pred_{stem}.json", lines)


def test_a_file_of_several_types_is_said_to_be_in_no_average(tmp_path):
    write_predictions(tmp_path / "in", stray=1)
    said = []
    (scored,) = score_predictions(tmp_path / "in", tmp_path / "out", report=said.append)
    entry = scored.results["files"]["biology_test"]
    assert (entry["type"], entry["types"]) == ("mixed", {"biology": 3, "reasoning": 1})
    assert (
        "biology_test: in `overall` only, as its lines are of several types: biology 3" in said[0]
    )
    assert "the average is over 1 of the 10 abilities, without biology, " in said[0]
    write_predictions(tmp_path / "in")
    (scored,) = score_predictions(tmp_path / "in", tmp_path / "out", report=said.append)
    assert "types" not in scored.results["files"]["biology_test"]
    assert "several types" not in said[1]


def test_an_average_over_all_abilities_says_nothing_of_them():
    results = {"average": 1.0, "files": {name: {"type": name} for name in ABILITY_NAMES}}
    assert list(_lacking(results, STUDY)) == []
    del results["files"]["math"]
    (said,) = _lacking(results, STUDY)
    assert said.strip() == "the average is over 9 of the 10 abilities, without math"


@pytest.mark.parametrize("record", [{"lines": {"biology_test": 4, "math_test": 5}}, {}])
def test_a_folder_that_is_not_predicted_to_its_end_is_said_to_be(tmp_path, record):
    folder = tmp_path / "in/c"
    write_predictions(folder)
    if record:
        write_json(folder / "run.json", record)
    else:
        (folder / "pred_math_test.json.1.partial").write_text("")
    (folder / "pred_biology_test.json.0.partial").write_text("")  # a leftover: it is complete
    said = []
    (scored,) = score_predictions(tmp_path / "in", tmp_path / "out", report=said.append)
    assert scored.results["missing_files"] == ["math_test"]
    assert "predictions that are not there: math_test" in said[0]
    write_lines(folder / "pred_math_test.json", [
        line("math", "答案\n$3$", answer="3", generated_response="3") for _ in range(5)
    ])  # fmt: skip
    (scored,) = score_predictions(tmp_path / "in", tmp_path / "out", report=said.append)
    assert "missing_files" not in scored.results
