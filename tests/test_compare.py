"""evaluate/compare.py: paired differences, their noise, what can't be compared."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT, STUDY, line, read_lines, run, write_lines
from scipy import stats
from statsmodels.stats.oneway import anova_oneway

from growth.data.questions import question_keys
from growth.report.answers import find_clusters
from growth.report.paired import (
    Paired,
    compare_ability,
    compare_mean,
    holm,
    noise_of,
    one_run_each,
    spread_of,
    t_test,
)
from growth.scoring.results import score_predictions

sys.path.insert(0, str(ROOT / "benchmarks"))
from compare_false_alarms import (
    halves,
    rejected,
    rejected_by_questions,
    rejected_means,
    rejected_spread,
    splits,
)
from compare_false_alarms import main as false_alarms

OUT_OF_DOMAIN = [ability.name for ability in STUDY.out_of_domain]
COMPARE = ROOT / "evaluate/compare.py"
EACH = np.arange
LOGITS = dict.fromkeys("ABCD", 0.0)


def pair(a, b, clusters=None):
    """One run on each side, or several: lists of lists."""
    a, b = (np.atleast_2d(np.array(side, float)) for side in (a, b))
    return Paired(a, b, EACH(a.shape[1]) if clusters is None else np.array(clusters))


def discordant(n, won, lost):
    """n questions of which A alone has `won` right, and B alone `lost`."""
    both = (n - won - lost) // 2
    a = [1] * won + [0] * lost + [1] * both + [0] * (n - won - lost - both)
    b = [0] * won + [1] * lost + a[won + lost :]
    return pair(a, b)


# One run on each side


@pytest.mark.parametrize(("won", "lost"), [(12, 3), (5, 5), (0, 4), (30, 10)])
def test_p_is_the_exact_one_of_mcnemar(won, lost):
    found = compare_ability(discordant(100, won, lost), seed=0)
    assert found.test == "McNemar"
    assert found.p == pytest.approx(stats.binomtest(won, won + lost).pvalue)
    assert found.value == pytest.approx((won - lost) / 100)
    assert found.low < found.value < found.high


def test_no_difference_at_all_has_an_interval_with_a_width():
    found = compare_ability(discordant(50, 0, 0), seed=0)
    assert found.p == 1
    assert found.low < -0.01 < 0.01 < found.high
    mean = compare_mean([discordant(50, 0, 0)] * 2, seed=0)
    assert mean.p > 0.3
    assert mean.low < -0.01 < 0.01 < mean.high


def test_probabilities_have_the_interval_of_a_paired_t_test():
    rng = np.random.default_rng(3)
    a, b = np.clip(rng.normal(0.4, 0.1, (2, 80)), 0, 1)
    found = compare_ability(Paired(a[None], b[None], EACH(80), graded=True), seed=0)
    theirs = stats.ttest_rel(a, b)
    ends = theirs.confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.test == "permutation"
    assert found.p == pytest.approx(theirs.pvalue, abs=0.02)


@pytest.mark.filterwarnings("error")
def test_probabilities_that_are_the_same_on_both_sides_do_not_differ():
    same = Paired(*np.full((2, 1, 20), 0.3), EACH(20), graded=True)
    for found in (compare_ability(same, seed=0), compare_mean([same, same], seed=0)):
        assert (found.value, found.p) == (0, 1)
        assert (found.low, found.high) == pytest.approx((0, 0), abs=1e-5)
    assert float(spread_of([same, same]).p) == 1


def test_the_interval_is_about_that_of_the_discordant_questions():
    found = compare_ability(discordant(1000, 120, 60), seed=0)
    error = np.sqrt((0.18 - 0.06**2) / 1000)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.01)


def test_the_smallest_difference_that_could_show_is_found_four_times_in_five():
    found = compare_ability(discordant(400, 50, 50), seed=0).detectable
    assert found == pytest.approx(2.8 * np.sqrt(100) / 400, rel=0.02)
    rng = np.random.default_rng(0)
    won = rng.binomial(400, 0.125 + found / 2, 1500)
    lost = rng.binomial(400 - won, (0.125 - found / 2) / (1 - 0.125 - found / 2))
    p = np.array([stats.binomtest(w, w + k).pvalue for w, k in zip(won, lost, strict=True)])
    assert 0.71 < np.mean(p < 0.05) < 0.84  # an exact test is a little below its level


def test_verdicts_between_right_and_wrong_are_permuted():
    a = np.tile([0.5, 1.0, 1.0, 0.5], 10)
    found = compare_ability(pair(a, a - 0.25 * (EACH(40) % 4 > 1)), seed=0)
    assert found.test == "permutation"
    assert found.p < 0.001


# Clusters


def test_questions_that_stand_there_twice_tell_nothing_new():
    once = halves(np.random.default_rng(0), 1, (2, 2), 40, 40, 0.2)
    twice = Paired(
        *(np.repeat(side, 2, axis=-1) for side in (once.a, once.b)), np.repeat(EACH(40), 2)
    )
    ignored = Paired(twice.a, twice.b, EACH(80))
    for name in ("questions", "answers", "runs"):
        own, other = (getattr(noise_of(paired), name)[0] for paired in (once, twice))
        assert other == pytest.approx(own, rel=0.06), name  # but for the questions that are added
    assert noise_of(ignored).questions[0] < 0.6 * noise_of(once).questions[0]


def test_a_passage_that_all_questions_share_shows_nothing():
    found = compare_ability(pair([1] * 30, [0] * 30, [0] * 30), seed=0)
    assert (found.value, found.p, found.test) == (1, 1, "permutation")
    assert found.low < 0


def test_the_permutation_test_swaps_whole_clusters():
    clusters = np.repeat(EACH(6), 10)
    found = compare_ability(pair([1] * 60, [0] * 60, clusters), seed=0)
    assert found.p == pytest.approx(2 / 2**6)


def test_clusters_are_lines_that_share_a_passage_by_any_chain():
    passages = [["p"], ["p", "q"], ["q"], [], ["r"], ["s"]]
    assert find_clusters(list("abcdef"), passages).tolist() == [0, 0, 0, 1, 2, 3]
    assert find_clusters(list("abcdea"), [[]] * 6).tolist() == [0, 1, 2, 3, 4, 0]


@pytest.mark.parametrize("count", [50, 12])
def test_an_instruction_makes_no_cluster(count):
    passages = [["instruction"], *[["instruction"]] * (count - 2), []]
    assert len(set(find_clusters(list(map(str, range(count))), passages))) == count


def test_a_passage_is_known_by_its_paragraphs_or_its_beginning():
    passage = "长篇课文的一段话，" * 8
    poem = "\n".join(f"诗中的第{i}行有几个字" for i in range(12))

    def keys(text, **more):
        record = line() | more
        record["messages"][0]["content"] = text
        return question_keys(record)

    first, second = keys(f"阅读：\n{passage}\n问题一"), keys(f"请看下文。\n{passage}\n问题二")
    assert set(first["passages"]) & set(second["passages"])
    assert set(keys(poem + "\n一")["passages"]) & set(keys(poem + "\n二")["passages"])
    assert keys("题目一")["passages"] == []
    assert keys("题目一")["question"] != keys("题目二")["question"]
    assert keys("题目一")["question"] != keys("题目一", choices=["a", "b"])["question"]
    assert keys("题目一")["idx"] == 0


# Repeats


def test_false_alarms_on_halves_of_one_models_repeats():
    """2,000 studies a row; 5 % of them plus twice the standard error is 6 %."""
    rng = np.random.default_rng(0)
    for runs in ((2, 2), (3, 3), (1, 3), (4, 5)):
        for questions, passages in ((100, 100), (100, 25), (20, 20)):
            for noise in (0, 0.1, 0.3):
                paired = halves(rng, 2000, runs, questions, passages, noise)
                assert np.mean(rejected(paired)) < 0.06, (runs, questions, passages, noise)


def test_the_questions_alone_would_raise_false_alarms():
    """That the simulated studies above would show it."""
    rng = np.random.default_rng(0)
    assert np.mean(rejected_by_questions(halves(rng, 2000, (3, 3), 100, 100, 0.3))) > 0.12
    grouped = halves(rng, 2000, (2, 2), 100, 10, 0)
    ignored = Paired(grouped.a, grouped.b, EACH(100))
    assert np.mean(rejected_by_questions(ignored)) > np.mean(rejected_by_questions(grouped)) + 0.02


@pytest.mark.parametrize("runs", [(2, 2), (3, 3)])
def test_false_alarms_of_the_mean_over_abilities(runs):
    rng = np.random.default_rng(0)
    for passages, noise in ((40, 0.3), (10, 0.1)):
        abilities = [halves(rng, 1000, runs, 40, passages, noise) for _ in range(3)]
        assert np.mean(rejected_means(abilities, 0, 300)) < 0.065


@pytest.mark.parametrize("runs", [(2, 2), (1, 3), (1, 1)])
@pytest.mark.parametrize("noise", [0, 0.3])
def test_false_alarms_of_abilities_that_differ_by_unlike_amounts(runs, noise):
    rng = np.random.default_rng(7)
    found = rejected_spread([halves(rng, 1000, runs, 100, 50, noise) for _ in range(10)])
    if runs == (1, 1) and noise:  # as documented: training noise is not in it
        assert np.mean(found) > 0.2
    else:
        assert np.mean(found) < 0.065


@pytest.mark.parametrize("runs", [(2, 2), (1, 1)])
def test_abilities_that_gain_unlike_amounts_are_told_from_those_that_gain_the_same(runs):
    rng = np.random.default_rng(8)
    made = [halves(rng, 300, runs, 100, 100, 0.1, gain) for gain in [0, 0.25] * 5]
    spread = np.std([paired.by_question.mean() for paired in made], ddof=1)
    assert np.mean(spread_of(made).p < 0.05) > 0.8
    same = [halves(rng, 300, runs, 100, 100, 0, 0.2) for _ in range(10)]
    assert np.mean(spread_of(same).p < 0.05) < 0.08
    assert np.mean(spread_of(made).sd) == pytest.approx(spread, abs=0.01)


def test_the_spread_is_that_of_welch_where_there_are_many_questions():
    made = [discordant(2000, 300, 200), discordant(1000, 90, 50), discordant(1500, 100, 140)]
    found = spread_of(made)
    values = [paired.by_question for paired in made]
    theirs = anova_oneway(values, use_var="unequal")
    assert float(found.f) == pytest.approx(theirs.statistic, rel=0.01)
    assert (found.df[0], float(found.df[1])) == pytest.approx(theirs.df, rel=0.01)
    assert float(found.p) == pytest.approx(theirs.pvalue, rel=0.05)
    error = np.mean([value.var() / len(value) for value in values])
    expected = np.sqrt(np.var([value.mean() for value in values], ddof=1) - error)
    assert float(found.sd) == pytest.approx(expected, rel=0.25)


def test_false_alarms_with_one_run_on_each_side_and_no_noise_of_training():
    rng = np.random.default_rng(0)
    for passages, resamples in ((60, 1), (10, 199)):
        studies = halves(rng, 1000, (1, 1), 60, passages, 0)
        p = [
            one_run_each(Paired(a, b, studies.clusters), 0, resamples)[0]
            for a, b in zip(studies.a, studies.b, strict=True)
        ]
        assert np.mean(np.array(p) < 0.05) < 0.06


def test_a_true_difference_is_found_and_held_by_the_interval():
    rng = np.random.default_rng(0)
    paired = halves(rng, 2000, (3, 3), 100, 100, 0.1, gain=0.2)
    noise, found = noise_of(paired), paired.by_question.mean(-1)
    variance, df = noise.total()
    held = np.abs(found - found.mean()) < stats.t.isf(0.025, df) * np.sqrt(variance)
    assert np.mean(rejected(paired)) > 0.8
    assert 0.94 < np.mean(held) < 0.995


def test_more_runs_that_agree_narrow_the_interval_and_runs_that_differ_widen_it():
    rng = np.random.default_rng(0)

    def width(runs, noise):
        variance, df = noise_of(halves(rng, 400, runs, 100, 100, noise)).total()
        return np.mean(stats.t.isf(0.025, df) * np.sqrt(variance))

    assert width((5, 5), 0.1) < 0.8 * width((2, 2), 0.1)
    assert width((3, 3), 0.6) > 1.5 * width((3, 3), 0.1)


def test_runs_that_agree_in_everything():
    same = pair([[1, 0, 1, 1, 0, 1]] * 2, [[1, 0, 0, 1, 0, 1]] * 2)
    found = compare_ability(same, seed=0)
    assert np.isfinite([found.low, found.high, found.p, found.detectable]).all()
    assert 0.05 < found.p <= 1
    assert 0.05 < compare_mean([same, same], seed=0).p <= 1


def test_p_of_many_studies_is_that_of_each():
    paired = halves(np.random.default_rng(0), 5, (2, 3), 30, 10, 0.2)
    p = t_test(paired.by_question.mean(-1), noise_of(paired))
    for place in range(5):
        one = Paired(paired.a[place], paired.b[place], paired.clusters)
        assert compare_ability(one, 0).p == pytest.approx(p[place])


def test_the_mean_is_over_abilities_not_questions_and_the_seed_gives_its_draws():
    few, many = discordant(20, 10, 0), discordant(200, 0, 20)
    one, again, other = (compare_mean([few, many], seed) for seed in (0, 0, 1))
    assert one.value == pytest.approx((0.5 - 0.1) / 2)
    assert one == again != other
    assert one.low == pytest.approx(other.low, abs=0.02)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_every_split_of_the_repeats_is_there_once():
    assert list(splits(2)) == [((0,), (1,))]
    assert len(list(splits(4))) == 3
    assert list(splits(3)) == [((0, 1), (2,)), ((0, 2), (1,)), ((1, 2), (0,))]


# The command


def answers(right, n=40, type_="biology", **more):
    """Predicted lines of one ability; `right(i)` says whether the answer to question i is."""
    lines = []
    for i in range(n):
        record = line(type_, "A", idx=i, choice_logits=LOGITS) | more
        record["messages"][0]["content"] = f"{type_}第{i}题"
        record["generated_response"] = "A" if right(i) else "B"
        lines.append(record)
    return lines


class Study:
    """Predictions and scores of runs whose answers are made up."""

    def __init__(self, folder):
        self.folder = folder

    def add(self, data_type, seed, share, abilities=("biology", "reasoning"), limit=None, **more):
        """A run that has `share` of its answers right; `more` goes into its record."""
        name = f"7b/{data_type}/seed-{seed}"
        at = self.folder / f"pred/test/{name}/checkpoint-6"
        rng = np.random.default_rng(seed + 17)
        for ability in abilities:
            chosen = rng.random(40) < share
            lines = answers(lambda i, chosen=chosen: chosen[i], limit or 40, ability)
            write_lines(at / f"pred_{ability}_test.json", lines)
        record = {"model_size": "7b", "data_type": data_type, "timestamp": f"seed-{seed}"}
        record |= {"checkpoint": "checkpoint-6", "seed": seed, "limit": limit} | more
        (at / "run.json").write_text(json.dumps(record))
        return at

    def score(self, details=True):
        results = self.folder / "results/test"
        score_predictions(self.folder / "pred/test", results, details=details)
        return results

    def compare(self, *flags, check=True):
        paths = ("--results_path", "results/test")
        return run(COMPARE, *flags, *paths, cwd=self.folder, check=check)

    def refused(self, *flags):
        done = self.compare(*flags, check=False)
        assert done.returncode == 2, done.stdout
        assert "Traceback" not in done.stderr
        assert not (self.folder / "evaluate").exists()
        (message,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
        return message


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


@pytest.fixture
def two(study):
    """Two settings of three and two seeds, scored."""
    for seed in range(3):
        study.add("curated-640", seed, 0.9)
    for seed in range(2):
        study.add("curated-160", seed, 0.4)
    study.score()
    return study


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return {row["ability"]: row for row in csv.DictReader(file)}


def test_the_figure_is_written_in_the_formats_asked_for(two):
    flags = ("--output_dir", "cmp", "--format=pdf,svg")
    two.compare("7b/curated-640", "7b/curated-160", *flags)
    drawn = {path.suffix for path in (two.folder / "cmp").iterdir()}
    assert drawn == {".csv", ".json", ".pdf", ".svg"}


def test_two_settings_with_several_seeds(two):
    done = two.compare("7b/curated-640", "7b/curated-160")
    folder = two.folder / "evaluate/compare/7b-curated-640-vs-7b-curated-160"
    assert sorted(path.name for path in folder.iterdir()) == [
        "compare.csv",
        "compare.json",
        "compare.png",
    ]
    assert "A  7b/curated-640 (3 runs, seeds 0, 1, 2)" in done.stdout
    assert "training noise" not in done.stderr
    rows = rows_of(folder / "compare.csv")
    assert list(rows) == ["biology", "reasoning", "average"]
    for row in rows.values():
        assert row["test"] in ("two-level t", "bootstrap and t of the runs")
        numbers = {name: float(row[name]) for name in ("score_a", "score_b", "difference", "p")}
        assert numbers["difference"] == pytest.approx(numbers["score_a"] - numbers["score_b"])
        assert float(row["low"]) < numbers["difference"] < float(row["high"])
    assert float(rows["average"]["p"]) < 0.05
    assert float(rows["average"]["low"]) > 10
    assert rows["average"]["p_holm"] == ""
    held = json.loads((folder / "compare.json").read_bytes())
    assert held["a"]["label"] == "7b/curated-640"
    assert [repeat["seed"] for repeat in held["b"]["repeats"]] == [0, 1]
    assert [row["ability"] for row in held["rows"]] == list(rows)
    assert held["rows"][-1]["p_holm"] is None
    between, within = held["spread"]["df"]
    assert (between, within > 1) == (1, True)
    said = f"Welch's F({between}, {within:.0f}) = {held['spread']['f']:.2f}, p = "
    assert f"do the abilities differ by unlike amounts? {said}" in done.stdout


def test_scores_are_those_of_the_results_files(two):
    two.compare("7b/curated-640/seed-0", "7b/curated-160/seed-1", "--output_dir", "out")
    rows = rows_of(two.folder / "out/compare.csv")
    for side, name in (("a", "curated-640/seed-0"), ("b", "curated-160/seed-1")):
        path = two.folder / f"results/test/7b/{name}/checkpoint-6-results.json"
        results = json.loads(path.read_bytes())
        for ability in ("biology", "reasoning"):
            score = results["files"][f"{ability}_test"]["score"]
            assert float(rows[ability][f"score_{side}"]) == score
        assert float(rows["average"][f"score_{side}"]) == results["average"]


def test_a_run_a_folder_and_a_results_file_are_sides(two):
    file = "results/test/7b/curated-640/seed-0/checkpoint-6-results.json"
    said = []
    for a in ("7b/curated-640/seed-0", "results/test/7b/curated-640/seed-0", file):
        done = two.compare(a, "7b/curated-160/seed-0", "--output_dir", "out")
        assert "note: one run on each side: training noise is not in the intervals" in done.stderr
        said.append(done.stdout.splitlines()[2:])
    assert said[0] == said[1] == said[2]


def test_the_probability_of_the_gold_answer_is_compared(two):
    done = two.compare("7b/curated-640", "7b/curated-160", "--value", "gold_probability")
    assert "compared: probability of the gold answer" in done.stdout
    folder = two.folder / "evaluate/compare/7b-curated-640-vs-7b-curated-160-gold_probability"
    assert json.loads((folder / "compare.json").read_bytes())["value"] == "gold_probability"
    own = []
    for path in sorted(two.folder.glob("results/test/7b/curated-640/*/*-results.json")):
        own.append(json.loads(path.read_bytes())["files"]["biology_test"]["gold_probability"])
    row = rows_of(folder / "compare.csv")["biology"]
    assert float(row["score_a"]) == pytest.approx(np.mean(own), abs=0.01)


def test_the_untuned_model_goes_by_its_tag(two):
    path = two.folder / "results/test/7b/curated-160/seed-0"
    copy = shutil.copytree(path, two.folder / "results/test/7b/untuned/base")
    (results,) = copy.glob("*-results.json")
    content = json.loads(results.read_bytes())
    content["run"] |= {"data_type": "untuned", "timestamp": "base", "seed": None}
    results.write_text(json.dumps(content))
    done = two.compare("7b/curated-640", "7b/base", "--output_dir", "out")
    assert "B  7b/base (1 run, seed ?)" in done.stdout
    assert "is not one of" not in done.stderr


def test_the_same_flags_give_the_same_bytes_and_another_seed_other_ones(two):
    found = []
    for flags in ((), (), ("--seed", "1")):
        two.compare("7b/curated-640", "7b/curated-160", "--output_dir", "out", *flags)
        found.append([path.read_bytes() for path in sorted((two.folder / "out").iterdir())])
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]


def test_questions_that_share_a_passage_are_counted(study):
    for seed, data_type in enumerate(("curated-640", "curated-160")):
        at = study.add(data_type, seed, 0.6)
        lines = read_lines(at / "pred_biology_test.json")
        for i, record in enumerate(lines):
            text = f"{'这是第几篇课文的话' * 8}{i // 4}"
            record["messages"][0]["content"] = f"{text}\n第{i}题"
        write_lines(at / "pred_biology_test.json", lines)
    study.score()
    study.compare("7b/curated-640", "7b/curated-160", "--output_dir", "out")
    rows = rows_of(study.folder / "out/compare.csv")
    assert (rows["biology"]["clusters"], rows["biology"]["questions"]) == ("10", "40")
    assert (rows["biology"]["test"], rows["reasoning"]["test"]) == ("permutation", "McNemar")


def test_out_of_domain_sets_stand_apart_from_the_mean(study):
    for seed, data_type in enumerate(("curated-640", "curated-160")):
        study.add(data_type, seed, 0.5, ("biology", "ethics", *OUT_OF_DOMAIN[:2]))
    study.score()
    study.compare("7b/curated-640", "7b/curated-160", "--output_dir", "out")
    rows = rows_of(study.folder / "out/compare.csv")
    assert list(rows)[-1] == "ood_average"
    assert rows["average"]["questions"] == "80"


def test_runs_of_one_seed_are_one_repeat(two):
    two.add("curated-640", 0, 0.9, timestamp="again")
    path = two.folder / "pred/test/7b/curated-640"
    (path / "seed-0").rename(path / "again")
    two.add("curated-640", 0, 0.8)
    two.score()
    done = two.compare("7b/curated-640", "7b/curated-160")
    assert "A  7b/curated-640 (3 runs, seeds 0, 1, 2)" in done.stdout
    assert "runs with one seed count as one repeat, their mean" in done.stderr


def test_the_repeats_of_a_study_are_halved_in_every_way(two, capsys):
    false_alarms(["--results_path", str(two.folder / "results/test")])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| 7b/curated-160 (1 and 1)", "1"],
        ["| 7b/curated-640 (2 and 1)", "3"],
        ["| all", "4"],
    ]
    assert rows[1].endswith(" of 6 | 0 of 6 | 0 of 3 |")


# What can't be compared


def test_both_sides_are_the_same(two):
    assert "both 7b/curated-640" in two.refused("7b/curated-640", "7b/curated-640")
    message = two.refused("7b/curated-640", "7b/curated-640/seed-1")
    assert "are the same" in message
    assert "seed-1" in message


def test_two_names_of_one_setting_are_the_same(study):
    study.add("curated-10000", 0, 0.5)
    study.add("baseline", 1, 0.5)
    study.score()
    assert "are the same" in study.refused("7b/curated-10000", "7b/baseline")


def test_a_side_that_is_not_there_names_those_that_are(two):
    message = two.refused("7b/curated-640", "7b/curated-10")
    assert "7b/curated-160, 7b/curated-640" in message
    assert "expected a setting" in two.refused("7b/curated-640", "curated-160")
    assert "no such file" in two.refused("7b/curated-640", "results/nowhere-results.json")


def test_missing_verdicts_say_how_to_get_them(study):
    study.add("curated-640", 0, 0.5)
    study.add("curated-160", 0, 0.5)
    study.score(details=False)
    message = study.refused("7b/curated-640", "7b/curated-160")
    assert "biology_test.jsonl: no such file" in message
    assert "evaluate/score.py --pred_data_path" in message
    assert "--details" in message


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[: len(text) // 2], ":1: malformed JSON"),
        (lambda text: text.replace('"score": ', '"score": 3'), "score"),
        (lambda text: text.replace('"score": 0', '"score": 1'), "of another scoring"),
        (lambda text: text.replace('"question"', '"other"'), "older version"),
        (lambda text: text.replace('"passages": []', '"passages": 3'), "passages"),
        (lambda text: "", "no line"),
        (lambda text: text + text, "80 verdicts"),
    ],
)
def test_damaged_verdicts_are_named(two, damage, says):
    name = "results/test/7b/curated-160/seed-1/checkpoint-6-details/biology_test.jsonl"
    path = two.folder / name
    text = path.read_text()
    if says.startswith(":1"):
        first, rest = text.split("\n", 1)
        text = f"{damage(first)}\n{rest}"
    else:
        text = damage(text)
    path.write_text(text)
    message = two.refused("7b/curated-640", "7b/curated-160")
    assert name in message
    assert says in message
    assert "--details" in message


def test_other_questions_name_both(study):
    study.add("curated-640", 0, 0.5)
    at = study.add("curated-160", 0, 0.5)
    lines = read_lines(at / "pred_biology_test.json")
    write_lines(at / "pred_biology_test.json", [*lines[1:], lines[0]])
    study.score()
    message = study.refused("7b/curated-640", "7b/curated-160")
    assert "other questions of biology" in message
    assert "curated-640/seed-0" in message
    assert "curated-160/seed-0" in message


def test_valid_against_test_is_of_other_questions(two):
    at = two.folder / "pred/test/7b/curated-160/seed-0/checkpoint-6"
    (at / "pred_biology_test.json").rename(at / "pred_biology_valid.json")
    two.score()
    message = two.refused("7b/curated-640", "7b/curated-160/seed-0")
    assert "biology_test and biology_valid" in message


def test_an_ability_that_one_side_lacks_is_left_out_with_a_note(study):
    study.add("curated-640", 0, 0.5, ("biology", "reasoning", "understanding"))
    study.add("curated-160", 0, 0.5, ("reasoning", "biology"))
    study.score()
    done = study.compare("7b/curated-640", "7b/curated-160")
    assert "note: understanding: left out, as results/test/7b/curated-160/seed-0" in done.stderr
    assert "Average of 2 of the ten abilities" in done.stdout


def test_no_ability_in_common(study):
    study.add("curated-640", 0, 0.5, ("biology",))
    study.add("curated-160", 0, 0.5, ("reasoning",))
    study.score()
    message = study.refused("7b/curated-640", "7b/curated-160")
    assert "no ability in common" in message
    assert "biology" in message
    assert "reasoning" in message


def test_smoke_runs_are_marked_and_are_not_compared_with_whole_ones(study):
    study.add("curated-640", 0, 0.5, limit=5)
    study.add("curated-160", 0, 0.5, limit=5)
    study.add("curated-40", 0, 0.5)
    study.score()
    done = study.compare("7b/curated-640", "7b/curated-160")
    assert "limit 5: smoke runs, not a result" in done.stdout
    name = "evaluate/compare/7b-curated-640-vs-7b-curated-160-limit5"
    assert (study.folder / name).is_dir()
    done = study.compare("7b/curated-640", "7b/curated-40", check=False)
    assert done.returncode == 2
    assert "5-limit5 and 40 lines" in done.stderr


def test_results_of_two_studies(two):
    path = two.folder / "results/test/7b/curated-160/seed-0/checkpoint-6-results.json"
    results = json.loads(path.read_bytes())
    results["run"]["study"] |= {"name": "law", "digest": "0" * 16}
    other = two.folder / "other-results.json"
    other.write_text(json.dumps(results))
    path.with_name("checkpoint-6-details").rename(two.folder / "other-details")
    assert "two studies" in two.refused("7b/curated-640", "other-results.json")
