"""CMMLU and AGIEval: recorded prompts and predictions, resuming, processes, bad input."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import ROOT, read_lines, run, write_lines
from in_process import load_script
from sentencepiece import SentencePieceProcessor

from growth.core import device
from growth.core.errors import InputError
from growth.core.options import ModelOptions, PromptOptions
from growth.data.published import read_table
from growth.inference.prompting import make_prompt_format
from growth.model.loading import load_tokenizer
from growth.model.source import find_model
from growth.model.tokenizer_files import PROBE_TEXTS
from growth.tasks.agieval import AGIEval
from growth.tasks.benchmark import read_exam, score
from growth.tasks.cmmlu import CATEGORIES, CHINA, CMMLU, HEADER, SUBJECTS
from growth.tasks.multiple_choice import SubjectTask

LETTERS = "ABCD"


def ask(benchmark, *flags):
    """Run evaluate/<benchmark>/run.py here, which spares the imports."""
    script = load_script(ROOT / f"evaluate/{benchmark}/run.py")
    script.main([str(flag) for flag in flags])


def write_cmmlu(folder, questions):
    """CMMLU's layout with made-up questions: `questions` is how many each subject has."""
    for subject, count in questions.items():
        for split, n in (("dev", 5), ("test", count)):
            path = folder / split / f"{subject}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "w", encoding="utf-8", newline="") as file:
                table = csv.writer(file)
                table.writerow(["", "Question", *LETTERS, "Answer"])
                for i in range(n):
                    text = f"{subject}{split}第{i}题" * (1 + i % 3)
                    table.writerow([i, text, *"甲乙丙丁", LETTERS[i % 4]])
    return folder


def agieval_item(i, label="B", **fields):
    return {
        "passage": None,
        "question": f"第{i}题",
        "options": [f"({letter}){i}" for letter in LETTERS],
        "label": label,
    } | fields


def write_agieval(folder):
    """AGIEval's layout: of the five lines of each set three have one answer among four."""
    lines = [
        agieval_item(0, passage="一段话。"),
        agieval_item(1, ["A"]),
        agieval_item(2, ["A", "B"]),
        agieval_item(3, options=["(A)甲", "(B)乙"]),
        agieval_item(4, "D"),
    ]
    for name in AGIEval.subjects:
        write_lines(folder / "v1" / f"{name}.jsonl", lines)
    with open(folder / "few_shot_prompts.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", *AGIEval.subjects])
        for i, label in enumerate(("A", ["B", "C"], ["D"])):
            cell = agieval_item(i, label)
            table.writerow([f"sample {i}", *[repr(cell)] * 9, json.dumps(cell)])
            table.writerow([f"explanation {i}", *[""] * 10])
    return folder


QUESTIONS = {"agronomy": 6, "arts": 4, "ancient_chinese": 5}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cmmlu(tmp_path_factory.mktemp("cmmlu"), QUESTIONS)


@pytest.fixture
def flags(tmp_path, tiny_model, data):
    """Flags of a run on made-up questions; `output` is where it writes."""
    return (
        *("--model_name_or_path", tiny_model, "--data_dir", data),
        *("--output_dir", tmp_path / "out"),
    )


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---------------------------------------------------------------- recorded facts


def test_recorded_cmmlu_prompts(golden, golden_benchmarks, tmp_path):
    facts = read_lines(golden / "cmmlu_prompts.jsonl")
    found = {}
    for max_length, shots in ((2048, (0, 5)), (400, (5,))):
        flags = ("--data_dir", golden_benchmarks / "cmmlu", "--dump_prompts", tmp_path / "dumped")
        length = ("--max_length", max_length, "--num_fewshot", *shots)
        ask("cmmlu", "--model_name_or_path", golden / "tiny-llama", *flags, *length)
        for dumped in read_lines(tmp_path / "dumped"):
            place = (dumped["subject"], dumped["row"], dumped["shots"], dumped["max_length"])
            found[place] = dumped
    assert (len(found), len(facts)) in ((3 * 11_582, 402), (3 * 8, 3 * 8))
    for fact in facts:
        assert found[fact["subject"], fact["row"], fact["shots"], fact["max_length"]] == fact


def test_cmmlu_keeps_the_shots_that_the_published_runner_keeps(tiny_model, tmp_path, procedure):
    """At every length, so also where shots fit to the last token."""
    benchmark, data = CMMLU(), write_cmmlu(tmp_path, {"arts": 1})
    subject = benchmark.read(data, "arts")
    # of four lengths; those of one length go together
    shots = [
        replace(shot, question=str(i) + "题目" * (i % 4)) for i, shot in enumerate(subject.shots)
    ]
    subject = replace(subject, shots=shots)
    header, question = HEADER.format("艺术学"), benchmark.text(subject.items[0])
    shots = [benchmark.text(shot) + shot.gold for shot in subject.shots]
    source = find_model(str(tiny_model), ModelOptions())
    format_ = make_prompt_format(load_tokenizer(source), PromptOptions(), "tiny")
    pieces = SentencePieceProcessor(str(tiny_model / "tokenizer.model")).encode
    counts = set()
    for max_length in range(10, 1 + 2 * len(pieces(header + "".join(shots) + question))):
        expected = procedure.published_prompt(pieces, header, shots, question, max_length)
        rendered = SubjectTask(benchmark, subject, "5-shot").render(0, format_, max_length)
        assert rendered.messages == [{"role": "user", "content": expected}], max_length
        assert len(rendered.ids) <= max_length
        counts.add(expected.count("答案是"))
    assert counts == {1, 3, 4, 5, 6}


def test_a_question_is_encoded_once_where_all_shots_fit(tiny_model, tmp_path, monkeypatch):
    """As part of its prompt; the shots are counted once a subject at most."""
    benchmark, data = CMMLU(), write_cmmlu(tmp_path, {"arts": 6})
    subject = benchmark.read(data, "arts")
    format_ = make_prompt_format(
        load_tokenizer(find_model(str(tiny_model), ModelOptions())), PromptOptions(), "tiny"
    )
    encoded = []
    encode = type(format_.chat).encode_content
    monkeypatch.setattr(
        type(format_.chat),
        "encode_content",
        lambda self, text: encoded.append(text) or encode(self, text),
    )
    for setting in benchmark.settings:
        encoded.clear()
        task = SubjectTask(benchmark, subject, setting)
        rendered = [task.render(i, format_, 2048) for i in range(len(task))]
        assert not any(prompt.fewer_shots or prompt.was_cut for prompt in rendered)
        for item in subject.items:
            assert sum(text.endswith(benchmark.text(item)) for text in encoded) == 1


def test_the_bound_on_a_texts_tokens_holds(tiny_model):
    """For sentencepiece; test_tokenizer_files.py holds the other kinds to it."""
    content = load_tokenizer(find_model(str(tiny_model), ModelOptions())).content
    for text in (*PROBE_TEXTS, "", " ", "\ufdfa" * 9, "题 目\u3000" * 20):
        assert len(content.encode(text)) <= content.at_most(text)


def test_agieval_keeps_the_demonstrations_that_the_published_runner_keeps(tiny_model, tmp_path):
    """The first that fit: a short one behind a long one is not shown without it."""
    benchmark, name = AGIEval(), AGIEval.subjects[0]
    subject = benchmark.read(write_agieval(tmp_path), name)
    shots = [
        replace(subject.shots[0], place=i, question="题目" * times)
        for i, times in enumerate((3, 9, 1, 9, 1), start=1)
    ]
    subject, item = replace(subject, shots=shots), subject.items[0]
    pieces = SentencePieceProcessor(str(tiny_model / "tokenizer.model")).encode
    source = find_model(str(tiny_model), ModelOptions())
    format_ = make_prompt_format(load_tokenizer(source), PromptOptions(), "tiny")
    task = SubjectTask(benchmark, subject, "few-shot")
    whole = benchmark.messages(subject, item, "few-shot", range(5))
    question = 1 + len(pieces(f"{item.passage}{item.question}{' '.join(item.choices)}"))
    counts = set()
    for max_length in range(question + 48, len(format_.encode(whole)) + 60):
        shown, text = 0, ""
        for user, assistant in zip(whole[:-1:2], whole[1::2], strict=True):
            text += user["content"] + assistant["content"]
            if 1 + len(pieces(text)) > max_length - 48 - question:
                break
            shown += 1
        rendered = task.render(0, format_, max_length)
        as_published = format_.encode(benchmark.messages(subject, item, "few-shot", range(shown)))
        if len(as_published) > max_length:
            # more stands around the texts than the published runner leaves room for
            assert len(rendered.messages) < len(whole[: 2 * shown + 1]) or shown == 0
            continue
        assert rendered.messages[:-1] == whole[: 2 * shown], max_length
        assert rendered.messages[-1]["content"].startswith(f"问题 {shown + 1}.")
        assert rendered.fewer_shots == (shown < 5)
        counts.add(shown)
    assert counts == {0, 1, 2, 3, 4, 5}


def test_recorded_agieval_prompts(golden, golden_benchmarks, tmp_path):
    facts = read_lines(golden / "agieval_prompts.jsonl")
    flags = ("--data_dir", golden_benchmarks / "agieval", "--dump_prompts", tmp_path / "dumped")
    ask("agieval", "--model_name_or_path", golden / "tiny-llama", *flags)
    found = {(d["dataset"], d["setting"], d["line"]): d for d in read_lines(tmp_path / "dumped")}
    assert (len(found), len(facts)) in ((2 * 3_269, 60), (2 * 6, 2 * 6))
    for fact in facts:
        assert found[fact["dataset"], fact["setting"], fact["line"]] == fact


def test_recorded_cmmlu_predictions(golden, golden_benchmarks, tmp_path):
    """Only the recorded questions are asked; the other rows of each file are left out."""
    facts = read_lines(golden / "cmmlu_predictions.jsonl")
    rows = {}
    for fact in facts:
        rows.setdefault(fact["subject"], set()).add(fact["row"])
    source, data = golden_benchmarks / "cmmlu", tmp_path / "data"
    shutil.copytree(source / "dev", data / "dev")
    (data / "test").mkdir()
    for subject, wanted in rows.items():
        header, *table = read_table(source / "test" / f"{subject}.csv")
        with open(data / f"test/{subject}.csv", "w", newline="") as file:
            csv.writer(file).writerows([header, *(table[row] for row in sorted(wanted))])
    assert len(facts) in (268, 2 * 8)
    model = ("--model_name_or_path", golden / "tiny-llama", "--precision", "fp32")
    for letter_tokens, prefix in (("answer", ""), ("bare", "bare_")):
        output = tmp_path / letter_tokens
        flags = ("--data_dir", data, "--output_dir", output, "--letter_tokens", letter_tokens)
        ask("cmmlu", *model, *flags)
        for fact in facts:
            sheet = read_lines(output / f"{fact['shots']}-shot/{fact['subject']}.jsonl")
            answer = sheet[sorted(rows[fact["subject"]]).index(fact["row"])]
            logits = fact["bare_logits" if prefix else "choice_logits"]
            assert list(answer["choice_logits"].values()) == pytest.approx(logits, abs=1e-3)
            assert answer["prediction"] == fact[f"{prefix}prediction"]


# ---------------------------------------------------------------- what comes out


def test_categories_are_those_of_the_paper():
    assert {name: len(subjects) for name, subjects in CATEGORIES.items()} == {
        "STEM": 17,
        "Humanities": 13,
        "Social Science": 22,
        "Other": 15,
        CHINA: 15,
    }
    without_china = [s for name, subjects in CATEGORIES.items() if name != CHINA for s in subjects]
    assert sorted(without_china) == sorted(SUBJECTS)


def test_a_run_leaves_sheets_a_record_and_results(flags, tmp_path, capsys):
    ask("cmmlu", *flags)
    out = tmp_path / "out"
    assert {str(path) for path in contents(out)} == {
        "run.json",
        "results.json",
        *(f"{shots}-shot/{subject}.jsonl" for shots in (0, 5) for subject in QUESTIONS),
    }
    results = json.loads((out / "results.json").read_text())
    assert results["run"]["asked"]["letter_tokens"] == "answer"
    assert {"fingerprint", "git", "versions", "device"} <= results["run"].keys()
    for setting in ("0-shot", "5-shot"):
        result = results["settings"][setting]
        accuracies = []
        for subject, count in QUESTIONS.items():
            sheet = read_lines(out / setting / f"{subject}.jsonl")
            assert [answer["row"] for answer in sheet] == list(range(count))
            for answer in sheet:
                logits = answer["choice_logits"]
                assert answer["prediction"] == max(logits, key=logits.get)
                likeliest = math.exp(max(logits.values()))
                confidence = likeliest / sum(map(math.exp, logits.values()))
                assert answer["confidence"] == pytest.approx(confidence, rel=1e-4)
                gold = math.exp(logits[answer["gold"]]) / sum(map(math.exp, logits.values()))
                assert answer["gold_probability"] == pytest.approx(gold, rel=1e-4)
            right = sum(answer["prediction"] == answer["gold"] for answer in sheet)
            entry = result["subjects"][subject]
            mean = sum(answer["gold_probability"] for answer in sheet) / count
            assert entry["gold_probability"] == pytest.approx(100 * mean, abs=0.01)
            assert entry["score"] == pytest.approx(100 * right / count, abs=0.01)
            assert entry["low"] <= entry["score"] <= entry["high"]
            accuracies.append(100 * right / count)
        assert result["average"] == pytest.approx(sum(accuracies) / 3, abs=0.01)
        means = [entry["gold_probability"] for entry in result["subjects"].values()]
        assert result["gold_probability"] == pytest.approx(sum(means) / 3, abs=0.01)
        assert result["categories"]["Humanities"]["average"] == result["subjects"]["arts"]["score"]
        assert "STEM" not in result["categories"]
        # Missing subjects are named, and in no mean.
        assert len(result["missing"]) == 67 - 3
    # 256 positions, in a vocabulary where most characters are bytes
    assert results["settings"]["5-shot"]["fewer_shots"] > 0
    printed = capsys.readouterr()
    assert "64 of 67 subjects are not in" in printed.err
    assert f"{results['settings']['0-shot']['average']:.2f} [" in printed.out
    assert "fewer shots, so as to fit" in printed.out


def test_a_missing_subject_counts_nowhere():
    def sheet(right, wrong):
        answer = {"gold": "A", "fewer_shots": False, "cut": False}
        return [answer | {"prediction": "A"}] * right + [answer | {"prediction": "B"}] * wrong

    class Two(AGIEval):
        subjects = ("one", "two", "three")

    result = score(Two(), {"one": sheet(1, 0), "two": sheet(1, 3)})
    assert result["missing"] == ["three"]
    assert result["average"] == 62.5
    assert result["over_examples"]["score"] == 40.0


def test_agieval_asks_single_answers_among_four(tmp_path, tiny_model):
    data = write_agieval(tmp_path / "data")
    exam = read_exam(AGIEval(), data)
    (subject, *_) = exam.subjects.values()
    assert [(item.place, item.gold) for item in subject.items] == [(0, "B"), (1, "A"), (4, "D")]
    assert [(shot.place, shot.gold) for shot in subject.shots] == [(1, "A"), (3, "D")]
    ask(
        *("agieval", "--model_name_or_path", tiny_model, "--data_dir", data),
        *("--output_dir", tmp_path / "out"),
    )
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert list(results["settings"]) == ["zero-shot", "few-shot"]
    for result in results["settings"].values():
        assert result["over_examples"]["n"] == 30
        assert not result["missing"]


def test_a_limited_run_says_so_in_its_names(flags, tmp_path):
    ask("cmmlu", *flags, "--limit", "2", "--num_fewshot", "0")
    names = {str(path) for path in contents(tmp_path / "out")}
    assert names == {
        "run.json",
        "results-limit2.json",
        *(f"0-shot-limit2/{subject}.jsonl" for subject in QUESTIONS),
    }


def test_a_question_that_does_not_fit_is_cut_from_its_left_and_counted(flags, tmp_path):
    ask("cmmlu", *flags, "--max_length", "20", "--num_fewshot", "0")
    result = json.loads((tmp_path / "out/results.json").read_text())["settings"]["0-shot"]
    assert result["cut"] == sum(QUESTIONS.values())


def test_several_models_each_have_a_folder(flags, tmp_path, tiny_model):
    other = shutil.copytree(tiny_model, tmp_path / "other")
    two = ("--model_name_or_path", tiny_model, other, *flags[2:], "--num_fewshot", "0")
    ask("cmmlu", *two, "--limit", "1")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {tiny_model.name, "other"}
    with pytest.raises(InputError, match="--tag"):
        ask("cmmlu", *two, "--tag", "one")
    with pytest.raises(InputError, match="one folder"):
        ask("cmmlu", *two, "--tag", "same", "same")


# ---------------------------------------------------------------- a model's own template


TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def with_template(tiny_model, folder, template):
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_a_model_is_asked_in_its_own_template(flags, tmp_path, tiny_model):
    from growth.inference.prompting import NativeFormat
    from growth.model.loading import load_tokenizer

    model = with_template(tiny_model, tmp_path / "native", TEMPLATE)
    chat = load_tokenizer(model)
    form = NativeFormat(chat, "answer", str(model))
    question = [{"role": "user", "content": "题目"}]
    text = "[user] 题目\n[assistant] "
    whole = chat.tokenizer(text + "B", add_special_tokens=False)["input_ids"]
    assert [*form.encode(question), form.letter_ids[1]] == whole
    with pytest.raises(InputError, match="spells a control token"):
        form.encode([{"role": "user", "content": "题<eot>目"}])
    ask("cmmlu", "--model_name_or_path", model, *flags[2:], "--chat_template", "native")
    # The folder's answers were asked for in another way.
    with pytest.raises(InputError, match="different: asked"):
        ask("cmmlu", "--model_name_or_path", model, *flags[2:])


HOSTILE_TEMPLATES = {
    "a loop without end": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
        "{% endfor %}{% endfor %}{% endfor %}",
        "takes too much CPU time",
    ),
    "a power of integers": ("{{ 9 ** (9 ** 9) }}", "takes too much CPU time"),
    "a text of 10 GB": ("{{ 'x' * 10 ** 10 }}", "takes too much memory"),
    "a text of 10 GB by doubling": (
        "{% set t = namespace(x='x') %}"
        "{% for i in range(40) %}{% set t.x = t.x ~ t.x %}{% endfor %}",
        "takes too much memory",
    ),
    "a text of 50 MB": ("{{ 'x' * 50000000 }}", "makes 50,000,000 characters"),
    "a range of 10^9": (
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "OverflowError",
    ),
    "an attribute": ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    "a change of the messages": ("{{ messages.append(1) }}", "SecurityError"),
    "a recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "a syntax error": ("{% for %}", "TemplateSyntaxError"),
    "a deep expression": ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "fails: "),
    "its own exception": ("{{ raise_exception('no\n\nway') }}", "TemplateError: no way"),
    "an undefined name": ("{{ x.y.z }}", "UndefinedError"),
    "a division by zero": ("{{ 1 / 0 }}", "ZeroDivisionError"),
    "a template of another name": ([{"name": "rag", "template": "x"}], "no default"),
}


@pytest.mark.parametrize(
    ("template", "reason"), HOSTILE_TEMPLATES.values(), ids=HOSTILE_TEMPLATES.keys()
)
def test_a_hostile_template_ends_in_one_line(flags, tmp_path, tiny_model, template, reason):
    model = with_template(tiny_model, tmp_path / "native", template)
    with pytest.raises(InputError, match="--chat_template native: the chat template of") as refusal:
        ask("cmmlu", "--model_name_or_path", model, *flags[2:], "--chat_template", "native")
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_no_text_of_a_question_becomes_a_control_token(tmp_path, tiny_model):
    """Special ones that have no name of their own, and added words that the template writes."""
    from growth.inference.prompting import NativeFormat
    from growth.model.chat_tokenizer import ChatTokenizer

    tokenizer = _llama_3_tokenizer()
    assert "<|eot_id|>" not in tokenizer.all_special_tokens  # it has no name
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<turn>{{ m.role }}\n\n{{ m.content }}<|eot_id|>"
        "{% endfor %}{% if add_generation_prompt %}<turn>assistant\n\n{% endif %}"
    )
    form = NativeFormat(ChatTokenizer(tokenizer, "it"), "answer", "it")
    assert form.encode([{"role": "user", "content": "a\n\nb <|eot_id> <eot_id>"}])
    for turns in (1, 3, 5):
        for spelt in ("<|eot_id|><turn>assistant", "<turn>", "<|eot_id|>", "<|begin_of_text|>",
                      "<|python_tag|>", "<eot>", "x<tool>"):  # fmt: skip
            messages = [
                {"role": ("user", "assistant")[i % 2], "content": "x"} for i in range(turns)
            ]
            form.encode(messages)
            if spelt == "x<tool>":  # an added word that is no control token
                form.encode([*messages[:-1], {"role": "user", "content": spelt}])
                continue
            with pytest.raises(InputError, match="spells a control token"):
                form.encode([*messages[:-1], {"role": "user", "content": spelt}])


def _llama_3_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AddedToken, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|python_tag|>")
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(word, special=False) for word in ("<turn>", "<tool>", "\n\n")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[1]
    )


def test_a_template_is_rendered_as_transformers_renders_it(tiny_model):
    from growth.inference.native_template import NativeTemplate
    from growth.model.loading import load_tokenizer

    tokenizer = load_tokenizer(tiny_model).tokenizer
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m | tojson }} {{ loop.index }}\n{% endfor %}  \n"
        "{%- if add_generation_prompt %}?{% endif %}{{ eos_token }}{{ strftime_now('%Y') }}"
    )
    template = NativeTemplate(tokenizer, "it")
    for turns in (1, 2, 3):
        messages = [
            {"role": ("user", "assistant")[i % 2], "content": f"题\n<{i}>"} for i in range(turns)
        ]
        for ask_ in (False, True):
            assert template.render(messages, ask_) == tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=ask_
            )


def test_without_a_template_the_native_one_is_refused(flags, tmp_path):
    with pytest.raises(InputError, match="no chat template"):
        ask("cmmlu", *flags, "--chat_template", "native")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- resuming


def test_what_is_there_is_kept_and_what_is_missing_is_done(flags, tmp_path):
    ask("cmmlu", *flags)
    quiet = contents(tmp_path / "out")
    (tmp_path / "out/5-shot/arts.jsonl").unlink()
    (tmp_path / "out/results.json").unlink()
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.jsonl")}
    ask("cmmlu", *flags)
    assert contents(tmp_path / "out") == quiet
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_another_model_behind_a_tag_is_refused(flags, tmp_path, tiny_model):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    flags = ("--model_name_or_path", model, *flags[2:])
    ask("cmmlu", *flags, "--num_fewshot", "0")
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match=r"another model.*fingerprint.*choose another --tag"):
        ask("cmmlu", *flags)
    shutil.copy(tiny_model / "model.safetensors", model)
    with open(model / "tokenizer_config.json", "a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(InputError, match=r"another model.*\(different: tokenizer\)"):
        ask("cmmlu", *flags)


def test_other_questions_behind_a_tag_are_refused_and_more_of_them_are_not(flags, tmp_path):
    questions = {"arts": 3}
    data = write_cmmlu(tmp_path / "data", questions)
    flags = (*flags[:2], "--data_dir", data, *flags[4:], "--num_fewshot", "0")
    ask("cmmlu", *flags)
    write_cmmlu(data, {"agronomy": 2})
    ask("cmmlu", *flags)
    result = json.loads((tmp_path / "out/results.json").read_text())["settings"]["0-shot"]
    assert list(result["subjects"]) == ["agronomy", "arts"]
    write_cmmlu(data, {"arts": 4})
    with pytest.raises(InputError, match=r"other questions.*test/arts.csv"):
        ask("cmmlu", *flags)


def test_answers_are_finished_in_the_precision_they_began_in(flags, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "_cpu_has_fast_bf16", lambda: False)
    ask("cmmlu", *flags, "--num_fewshot", "0")
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["run"]["asked"]["precision"] == "fp32"
    monkeypatch.setattr(device, "_cpu_has_fast_bf16", lambda: True)
    with pytest.raises(InputError, match=r"asked \(precision 'fp32', now 'bf16'\)"):
        ask("cmmlu", *flags)


def test_as_published_asks_in_fp32_and_reads_bare_pieces(flags, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "_cpu_has_fast_bf16", lambda: True)
    with pytest.raises(InputError, match="--precision bf16: --as_published computes in fp32"):
        ask("cmmlu", *flags, "--as_published", "--precision", "bf16")
    with pytest.raises(InputError, match="--letter_tokens answer: --as_published reads bare"):
        ask("cmmlu", *flags, "--as_published", "--letter_tokens", "answer")
    assert not (tmp_path / "out").exists()
    ask("cmmlu", *flags, "--as_published", "--num_fewshot", "0")
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["run"]["as_published"] is True
    assert results["run"]["asked"]["precision"] == "fp32"
    assert results["run"]["asked"]["letter_tokens"] == "bare"
    explicit = ("--precision", "fp32", "--letter_tokens", "bare", "--num_fewshot", "0")
    ask("cmmlu", *flags[:4], "--output_dir", tmp_path / "explicit", *explicit)
    for subject in QUESTIONS:
        sheets = (tmp_path / f"{place}/0-shot/{subject}.jsonl" for place in ("out", "explicit"))
        assert len({sheet.read_bytes() for sheet in sheets}) == 1


# A parent that never computes forks what it has imported: a rank costs no imports.
FORKS = """
import os, socket, sys
sys.argv = [{script!r}]
import importlib.util
spec = importlib.util.spec_from_file_location("run", {script!r})
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)
import growth.tasks.benchmark_run
import transformers.models.llama.modeling_llama

def begin(flags, **environment):
    child = os.fork()
    if child == 0:
        os.environ.update(environment)
        status = 1
        try:
            script.main(flags)
            status = 0
        finally:
            os._exit(status)
    return child

def finish(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def flags(output):
    return {flags!r} + ["--output_dir", output]

assert finish(begin(flags("quiet"))) == 0
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = str(free.getsockname()[1])
launch = dict(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
ranks = [begin(flags("two"), RANK=str(i), LOCAL_RANK=str(i), **launch) for i in range(2)]
assert [finish(rank) for rank in ranks] == [0, 0]
"""


@pytest.mark.slow
def test_two_processes_leave_the_files_of_one(tmp_path, tiny_model, data):
    questions = dict.fromkeys(("agronomy", "arts", "virology", "genetics", "management"), 30)
    data = write_cmmlu(tmp_path / "data", questions)
    flags = ["--model_name_or_path", str(tiny_model), "--data_dir", str(data)]
    program = FORKS.format(script=str(ROOT / "evaluate/cmmlu/run.py"), flags=flags)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    quiet = contents(tmp_path / "quiet")
    assert len(quiet) == 2 + 2 * len(questions)
    assert contents(tmp_path / "two") == quiet


# ---------------------------------------------------------------- bad input


def test_a_sheet_that_lost_its_last_line_is_refused(flags, tmp_path, capsys):
    """Whether its subject is asked again or only scored again."""
    data = write_cmmlu(tmp_path / "data", {"arts": 4, "virology": 4})
    again = ("cmmlu", *flags[:2], "--data_dir", data, *flags[4:], "--num_fewshot", "0")
    ask(*again)
    assert json.loads((tmp_path / "out/run.json").read_text())["questions"] == {
        "0-shot/arts.jsonl": 4,
        "0-shot/virology.jsonl": 4,
    }
    ask(*again, "--limit", "2")
    sheet = tmp_path / "out/0-shot/arts.jsonl"
    lines = sheet.read_text(encoding="utf-8").splitlines(keepends=True)
    sheet.write_text("".join(lines[:-1]), encoding="utf-8")
    said = "arts.jsonl: holds 3 answers, 4 questions were asked; remove it"
    with pytest.raises(InputError, match=said):
        ask(*again)
    for split in ("dev", "test"):
        (data / split / "arts.csv").unlink()
    with pytest.raises(InputError, match=said):
        ask(*again)
    sheet.unlink()
    ask(*again)


def spoil_cell(old, new):
    def spoil(data):
        path = data / "test/arts.csv"
        path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")

    return spoil


NO_QUESTION = ",Question,A,B,C,D,Answer\n"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_cell("Answer", "Antwort"), "arts.csv: no column Answer"),
        (lambda d: (d / "test/arts.csv").write_text(NO_QUESTION), "no question"),
        (lambda d: (d / "dev/arts.csv").write_text(NO_QUESTION), "dev/arts.csv: holds no question"),
        (lambda d: (d / "test/arts.csv").write_bytes(b"\xff\xfe"), "not a CSV file in UTF-8"),
        (shutil.rmtree, r"nothing of CMMLU is there .* python data/download.py --datasets cmmlu"),
    ],
)
def test_bad_questions_are_refused_before_a_model_is_loaded(flags, tmp_path, spoil, message):
    data = write_cmmlu(tmp_path / "data", {"arts": 3})
    spoil(data)
    with pytest.raises(InputError, match=message):
        ask("cmmlu", *flags[:2], "--data_dir", data, *flags[4:])
    assert not (tmp_path / "out").exists()


def test_an_unreadable_subject_does_not_stop_the_others(flags, tmp_path, capsys):
    data = write_cmmlu(tmp_path / "data", {"arts": 3, "virology": 2})
    (data / "test/arts.csv").write_bytes(b"\xff\xfe")
    ask("cmmlu", *flags[:2], "--data_dir", data, *flags[4:], "--num_fewshot", "0")
    result = json.loads((tmp_path / "out/results.json").read_text())["settings"]["0-shot"]
    assert list(result["subjects"]) == ["virology"]
    assert "arts" in result["missing"]
    assert "not a CSV file" in result["left_out"]["arts"][0]
    printed = capsys.readouterr()
    assert "arts, the subject is in no mean: " in printed.err
    assert "0-shot: left out, as they can't be read (see results): arts 1" in printed.out


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("3,题,甲,乙,丙,丁,", "names no option"),
        ("3,题,甲,乙,丙,丁,E", "has the answer 'E'"),
        ("3,题,甲,乙,丙,丁,AB", "has the answer 'AB'"),
        ("3,题,甲,乙,丙,丁,见解析", "names no option"),
        ("3,题,甲,乙,丙,丁,A,A", "it has 8 fields, the header 7"),
        ("3,题,甲,乙,丙,,A", "it has the options A, B, C; expected"),
        ("3,,甲,乙,丙,丁,A", "the question is empty"),
        ("3, \u3000,甲,乙,丙,丁,A", "the question is empty"),
        (",,,,,,", "a blank row"),
        (" ", "a blank row"),
    ],
)
def test_a_row_that_is_no_question_is_left_out_by_name(flags, tmp_path, row, reason, capsys):
    data = write_cmmlu(tmp_path / "data", {"arts": 3})
    for split in ("dev", "test"):
        with open(data / split / "arts.csv", "a", encoding="utf-8") as file:
            file.write(f"{row}\n4,末题,甲,乙,丙,丁,C\n")
    ask("cmmlu", *flags[:2], "--data_dir", data, *flags[4:])
    results = json.loads((tmp_path / "out/results.json").read_text())["settings"]
    for setting in ("0-shot", "5-shot"):
        (of_test, of_dev) = results[setting]["left_out"]["arts"]
        assert "test/arts.csv: question 3 (from 0) is left out: " in of_test
        assert reason in of_test
        assert "dev/arts.csv: question 5 (from 0) is left out: " in of_dev
        sheet = read_lines(tmp_path / f"out/{setting}/arts.jsonl")
        assert [(answer["row"], answer["gold"]) for answer in sheet][-1] == (4, "C")
        assert len(sheet) == 4
    assert f"arts, left out: {data}/test/arts.csv: question 3" in capsys.readouterr().err


@pytest.mark.parametrize("cell", ["B", "(B)", "（B）", "Ｂ", " B ", "b", "B.", "[B]"])
def test_a_letter_is_read_however_it_is_spelt(tmp_path, cell):
    data = write_cmmlu(tmp_path / "cmmlu", {"arts": 1})
    with open(data / "test/arts.csv", "a", encoding="utf-8") as file:
        file.write(f"1,题,甲,乙,丙,丁,{cell}\n")
    assert read_exam(CMMLU(), data).subjects["arts"].items[1].gold == "B"
    data = write_agieval(tmp_path / "agieval")
    lines = [agieval_item(0, cell), agieval_item(1, [cell])]
    write_lines(data / "v1/logiqa-zh.jsonl", lines)
    subject = read_exam(AGIEval(), data).subjects["logiqa-zh"]
    assert [item.gold for item in subject.items] == ["B", "B"]
    assert not subject.left_out


def test_a_question_with_five_options_is_left_out(tmp_path):
    data = write_cmmlu(tmp_path, {"arts": 1})
    with open(data / "test/arts.csv", "w", encoding="utf-8") as file:
        file.write("Question,A,B,C,D,E,Answer\n一,甲,乙,丙,丁,戊,A\n二,甲,乙,丙,丁,,B\n")
    subject = read_exam(CMMLU(), data).subjects["arts"]
    assert [item.place for item in subject.items] == [1]
    assert "A, B, C, D, E; expected A, B, C, D" in subject.left_out[0]


OF_TWO_ROWS = ROOT / "tests/cases/cmmlu_two_shots"


def test_fewer_shots_than_the_setting_says_are_reported(flags, tmp_path, capsys):
    ask("cmmlu", *flags[:2], "--data_dir", OF_TWO_ROWS, *flags[4:], "--num_fewshot", "0", "2", "5")
    settings = json.loads((tmp_path / "out/results.json").read_text())["settings"]
    assert settings["0-shot"]["short_of_shots"] == {}
    assert settings["2-shot"]["short_of_shots"] == {}
    assert settings["5-shot"]["short_of_shots"] == {"agronomy": 2}
    assert "5-shot: not that many shots are in the data" in capsys.readouterr().out
    # Scores of an earlier version say it too, the next time.
    record = json.loads((tmp_path / "out/run.json").read_text())
    del record["read"]
    (tmp_path / "out/run.json").write_text(json.dumps(record))
    ask("cmmlu", *flags[:2], "--data_dir", OF_TWO_ROWS, *flags[4:])
    settings = json.loads((tmp_path / "out/results.json").read_text())["settings"]
    assert settings["5-shot"]["short_of_shots"] == {"agronomy": 2}


def test_a_line_separator_in_a_question_ends_no_line(flags, tmp_path):
    data = ROOT / "tests/cases/cmmlu_u2028"
    for _ in range(2):
        ask("cmmlu", *flags[:2], "--data_dir", data, *flags[4:], "--num_fewshot", "0")
    result = json.loads((tmp_path / "out/results.json").read_text())["settings"]["0-shot"]
    assert result["over_examples"]["n"] == 5


def test_a_demonstration_with_five_options_is_shown_as_agieval_does(tmp_path, tiny_model):
    data = tmp_path / "data"
    shutil.copytree(ROOT / "tests/cases/agieval5", data)
    flags = ("--model_name_or_path", tiny_model, "--data_dir", data)
    ask("agieval", *flags, "--dump_prompts", tmp_path / "dumped")
    few = [d for d in read_lines(tmp_path / "dumped") if d["setting"] == "few-shot"]
    shown, answer, asked = few[0]["messages"]
    assert shown["content"].endswith("(E)5\n答案：从A到E, 我们应选择")
    assert answer["content"] == "A"
    assert asked["content"].endswith("(D)4\n答案：从A到D, 我们应选择")
    ask("agieval", *flags, "--output_dir", tmp_path / "out")
    settings = json.loads((tmp_path / "out/results.json").read_text())["settings"]
    assert settings["few-shot"]["short_of_shots"] == {"gaokao-physics": 1}


def test_options_of_an_object_are_read_by_letter(tmp_path):
    data = write_agieval(tmp_path)
    options = {"B": "乙", "A": "甲", "D": "(D)丁", "C": "丙"}
    write_lines(data / "v1/logiqa-zh.jsonl", [agieval_item(0, options=options)])
    (item,) = read_exam(AGIEval(), data).subjects["logiqa-zh"].items
    assert item.choices == ("(A)甲", "(B)乙", "(C)丙", "(D)丁")


BAD_ITEMS = [
    ("{", "logiqa-zh.jsonl:1: left out, not an AGIEval item"),
    ("[]", "logiqa-zh.jsonl:1"),
    (agieval_item(0, label="E"), "logiqa-zh.jsonl:1: .*label 'E'"),
    (agieval_item(0, label=None), "label None names no option"),
    (agieval_item(0, label=[]), "names no option"),
    (agieval_item(0, options=None), "logiqa-zh.jsonl:1"),
    (agieval_item(0, options=[1, 2, 3, 4]), "logiqa-zh.jsonl:1"),
    (agieval_item(0, options={"A": "甲", "C": "丙"}), "logiqa-zh.jsonl:1"),
    (agieval_item(0, options={"A": 1, "B": 2}), "logiqa-zh.jsonl:1"),
    (agieval_item(0, question=None), "logiqa-zh.jsonl:1"),
    (agieval_item(0, question=" "), "the question is empty"),
    (agieval_item(0, options=["(A)甲", "(B)乙", "(C)丙", ""]), "the option D is empty"),
    (agieval_item(0, options={"A": "甲", "B": "乙", "C": "丙", "D": None}), "logiqa-zh.jsonl:1"),
    (agieval_item(0, passage=5), "logiqa-zh.jsonl:1"),
    (agieval_item(0, passage=["x"]), "logiqa-zh.jsonl:1"),
]


@pytest.mark.parametrize(("line", "message"), BAD_ITEMS)
def test_bad_items_are_left_out_by_name(tmp_path, line, message):
    data = write_agieval(tmp_path)
    write_lines(data / "v1/logiqa-zh.jsonl", [line, agieval_item(7, "C"), "", "  "])
    exam = read_exam(AGIEval(), data)
    assert [item.gold for item in exam.subjects["logiqa-zh"].items] == ["C"]
    assert re.search(message, exam.left_out()["logiqa-zh"][0])
    write_lines(data / "v1/logiqa-zh.jsonl", [line])
    exam = read_exam(AGIEval(), data)
    assert len(exam.subjects) == 9
    assert re.search(message, exam.unreadable["logiqa-zh"])


def test_a_passage_may_hold_the_whole_question(tmp_path):
    data = write_agieval(tmp_path)
    write_lines(data / "v1/logiqa-zh.jsonl", [agieval_item(0, question="", passage="问")])
    assert len(read_exam(AGIEval(), data).subjects["logiqa-zh"].items) == 1


ODD_OPTIONS = {
    "have options without the letters A to D in their order": [
        ["(B)甲", "(A)乙", "(C)丙", "(D)丁"],
        ["(A)甲", "(A)乙", "(A)丙", "(A)丁"],
        ["甲", "乙", "丙", "丁"],
    ],
    "have an option of its letter alone": [["(A)", "(B)乙", "(C)丙", "(D)丁"], list("ABCD")],
}


@pytest.mark.parametrize("doubt", ODD_OPTIONS)
def test_questions_with_odd_options_are_asked_and_counted(tmp_path, doubt):
    data = write_agieval(tmp_path)
    plain = [
        ["(A)甲", "(B)乙", "(C)丙", "(D)丁"],
        ["A．甲", "B．乙", "C．丙", "D．丁"],
        ["（A） 甲", "(B) 乙", "C.丙", "D、丁"],
    ]
    lines = [agieval_item(i, options=o) for i, o in enumerate(plain + ODD_OPTIONS[doubt])]
    write_lines(data / "v1/logiqa-zh.jsonl", lines)
    benchmark = AGIEval()
    subject = read_exam(benchmark, data).subjects["logiqa-zh"]
    assert len(subject.items) == len(lines)
    assert benchmark.doubts(subject) == {doubt: len(ODD_OPTIONS[doubt])}


def test_repeated_questions_are_counted_and_said(flags, tmp_path, capsys):
    data = write_cmmlu(tmp_path / "data", {"arts": 3, "virology": 2})
    rows = (data / "test/arts.csv").read_text().splitlines()
    shown = (data / "dev/arts.csv").read_text().splitlines()[1]
    (data / "test/arts.csv").write_text("\n".join([*rows, rows[1], rows[2], shown]) + "\n")
    ask("cmmlu", *flags[:2], "--data_dir", data, *flags[4:], "--num_fewshot", "0")
    result = json.loads((tmp_path / "out/results.json").read_text())["settings"]["0-shot"]
    assert result["doubts"] == {"arts": {"repeat another one": 2, "are among the shots": 1}}
    notes = capsys.readouterr().err
    assert "arts: 2 questions repeat another one; asked as they stand" in notes
    assert "arts: 1 questions are among the shots; asked as they stand" in notes
    assert "virology: " not in notes


@pytest.mark.parametrize("remove", [False, True])
def test_answers_to_a_subject_that_is_gone_are_said_to_be_in_the_mean(
    flags, tmp_path, capsys, remove
):
    data = write_cmmlu(tmp_path / "data", {"arts": 3, "virology": 2})
    (data / "test/agronomy.csv").write_text("broken")
    (data / "dev/agronomy.csv").write_text("broken")
    flags = (*flags[:2], "--data_dir", data, *flags[4:], "--num_fewshot", "0")
    ask("cmmlu", *flags)
    before = json.loads((tmp_path / "out/results.json").read_text())["settings"]
    capsys.readouterr()
    if remove:
        (data / "test/arts.csv").unlink()
    else:
        (data / "test/arts.csv").write_text("broken")
    ask("cmmlu", *flags)
    notes = capsys.readouterr().err
    out = tmp_path / "out"
    assert f"arts, not asked, but its earlier answers in {out} are in the means there: " in notes
    assert "agronomy, the subject is in no mean: " in notes
    assert f"64 of 67 subjects are not in {data} and in no mean" in notes
    assert json.loads((out / "results.json").read_text())["settings"] == before


def test_what_is_not_asked_is_counted(tmp_path, tiny_model):
    data = write_agieval(tmp_path / "data")
    lines = [
        agieval_item(0),
        agieval_item(1, ["A", "B"]),
        agieval_item(2, "AB"),
        agieval_item(3, options=["(A)", "(B)", "(C)", "(D)", "(E)"]),
    ]
    write_lines(data / "v1/logiqa-zh.jsonl", lines)
    subject = read_exam(AGIEval(), data).subjects["logiqa-zh"]
    assert (len(subject.items), subject.not_asked, subject.left_out) == (1, 3, ())


def test_demonstrations_that_can_not_be_read_are_left_out_by_name(tmp_path):
    data = write_agieval(tmp_path)
    path = data / "few_shot_prompts.csv"
    path.write_text(path.read_text().replace("第0题", "第0题' +", 1))
    exam = read_exam(AGIEval(), data)
    ((name, (problem,)),) = exam.left_out().items()
    assert f"few_shot_prompts.csv: column {name}, sample 1: left out" in problem
    assert [shot.place for shot in exam.subjects[name].shots] == [3]


def test_a_spoilt_sheet_is_named(flags, tmp_path):
    ask("cmmlu", *flags, "--num_fewshot", "0")
    (tmp_path / "out/0-shot/arts.jsonl").write_text("{}\n")
    with pytest.raises(
        InputError, match=r"arts.jsonl:1: Object missing required field `prediction`"
    ):
        ask("cmmlu", *flags, "--num_fewshot", "0")


@pytest.mark.parametrize("name", ["cmmlu", "agieval"])
def test_the_wrapper_explains_itself_and_refuses(checkout, name):
    script = f"evaluate/{name}/run.sh"
    assert f"bash {script} GPU" in run(script, "--help", cwd=checkout).stdout
    for words, message in (
        (("cpu", "model"), "expected GPU MODEL_NAME_OR_PATH SAVE_TAG"),
        (("first", "model", "tag"), "GPU first"),
        (("cpu", "model", "--limit"), "SAVE_TAG --limit"),
    ):
        done = run(script, *words, cwd=checkout, check=False)
        assert done.returncode == 2
        assert message in done.stderr
    done = run(script, "cpu", "model", "tag", cwd=checkout, check=False)
    assert done.returncode == 2
    log = checkout / f"evaluate/{name}/logs/tag.log"
    assert "python data/download.py" in done.stdout
    assert "python data/download.py" in log.read_text()
