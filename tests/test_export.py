"""What leaves: folders, cards, GGUF; and other tools that take it, where they are installed."""

import functools
import importlib.util
import json
import shutil
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from conftest import ABILITIES, OUT_OF_DOMAIN, ROOT, line, read_lines, run
from families import FAMILIES, make_chinese_llama_plus, random_strings
from jinja2 import Environment
from test_bad_input import refused

from growth.core.errors import InputError
from growth.core.files import sha256
from growth.export.chat_template import ZERO_WIDTH_SPACE, chat_template, fitting_template
from growth.export.checkpoint_files import portable_form
from growth.export.gguf import write_gguf
from growth.model.loading import load_model, load_tokenizer
from growth.model.source import find_model

HARNESS = ROOT / "evaluate/harness"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model, tiny_data):
    """A folder with the scripts, a run of one checkpoint in it, predicted and scored."""
    from conftest import copy_scripts

    folder = copy_scripts(tmp_path_factory.mktemp("trained"))
    shutil.copytree(tiny_data / "curated", folder / "data/curated")
    run("data/build.py", "--data_type", "curated-40", cwd=folder)
    finetune = ("train/finetune.py", "--model_name_or_path", tiny_model, "--epochs", "1")
    finetune += ("--train_dir", "data/curated-40", "--valid_dir", "data/curated/valid")
    run(*finetune, "--output_dir", "runs/x", "--precision", "fp32", cwd=folder)
    predict = ("evaluate/predict.py", "--model_name_or_path", "runs/x/checkpoint-1")
    predict += ("--eval_data_path", "data/curated/valid", "--max_new_tokens", "16")
    run(*predict, "--precision", "fp32", cwd=folder)
    run(
        "evaluate/score.py", "--pred_data_path", "evaluate/pred-data/valid", "--details", cwd=folder
    )
    return folder


def test_a_checkpoint_has_a_card_and_scores_join_it_later(trained):
    card = trained / "runs/x/checkpoint-1/README.md"
    text = card.read_text()
    record = json.loads((trained / "runs/x/run.json").read_text())
    digest = sha256(trained / "data/curated-40/biology.json")
    for fact in ("# curated-40", "step 1 of 1", digest, "| learning_rate | 1e-05 |", "<eot>"):
        assert fact in text
    (evaluated,) = [m for m in read_lines(trained / "runs/x/metrics.jsonl") if "eval_loss" in m]
    assert f"Validation loss {evaluated['eval_loss']:.4f}" in text
    assert "None yet" in text
    assert str(trained) not in text  # a card goes to other people
    (results,) = (trained / "evaluate/results/valid").rglob("*-results.json")
    scores = json.loads(results.read_text())
    export = ("evaluate/export.py", "--model_name_or_path", "runs/x/checkpoint-1")
    run(*export, "--results_path", cwd=trained)
    text = card.read_text()
    assert "None yet" not in text
    assert f"| valid | **average** | | {scores['average']} |" in text
    for name, entry in scores["files"].items():
        assert f"| valid | {name} | {entry['n']} | {entry['score']} |" in text
    assert record["model_name_or_path"] not in text


def test_an_adapter_is_exported_as_a_whole_model(tmp_path, checkout):
    adapted = make_chinese_llama_plus(tmp_path / "plus").eval()
    export = ("evaluate/export.py", "--model_name_or_path", tmp_path / "plus")
    run(*export, "--output_dir", "whole", "--gguf", "whole.gguf", cwd=checkout)
    chat = load_tokenizer(checkout / "whole")
    ids = torch.tensor([chat.encode_content("春风又绿江南岸")])
    with torch.no_grad():
        expected = adapted(ids).logits
        for path in ("whole", "whole.gguf"):
            model = load_model(checkout / path, torch.float32, chat).eval()
            logits = model(ids).logits[..., : expected.shape[-1]]
            tolerance = 1e-4 if path == "whole" else 2e-2  # 16 bits
            assert (logits - expected).abs().max() < tolerance * expected.abs().max()
    refused(checkout, *export, "--output_dir", "whole", says=["--output_dir whole", "already"])
    refused(checkout, *export, says=["--output_dir or --gguf"])


@pytest.mark.parametrize("name", ["llama2", "qwen2", "gemma3", "gguf"])
def test_control_tokens_begin_as_the_bounds_of_a_text(name, tmp_path, checkout):
    FAMILIES[name](tmp_path / name)
    chat = load_tokenizer(tmp_path / name)
    before = load_model(tmp_path / name, torch.float32, chat)
    export = ("evaluate/export.py", "--init_control_tokens", "text", "--output_dir", "base")
    run(*export, "--model_name_or_path", tmp_path / name, cwd=checkout)
    after = load_model(checkout / "base", torch.float32, load_tokenizer(checkout / "base"))
    controls = [chat.user_id, chat.assistant_id, chat.eot_id]
    closing = chat.tokenizer.eos_token_id
    opening = closing if chat.tokenizer.bos_token_id is None else chat.tokenizer.bos_token_id
    others = [i for i in range(chat.vocabulary_size) if i not in controls]
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        old, new = (getattr(model, layer)().weight for model in (before, after))
        assert torch.equal(new[others], old[others])
        assert torch.equal(new[controls], old[[opening, opening, closing]])
        assert not torch.equal(new[controls], old[controls])
    again = (*export[:3], "--model_name_or_path", "base", "--output_dir", "more")
    refused(checkout, *again, says=["--init_control_tokens text: base has the control tokens"])
    card = (*export[:3], "--model_name_or_path", "base")
    refused(checkout, *card, says=["--init_control_tokens text", "--output_dir or --gguf"])


@pytest.mark.parametrize("token", ["<x>", f"<{ZERO_WIDTH_SPACE}e"])
def test_breaking_one_special_token_makes_no_other(token):
    special = ["<user>", "<assistant>", "<eot>", token]
    template = chat_template(sorted(special, key=lambda t: (-len(t), t)))
    message = {"role": "user", "content": f"say <eot>, {token} now"}
    text = Environment().from_string(template).render(messages=[message])
    content = text.removeprefix("<user>").removesuffix("<eot>")
    assert not [token for token in special if token in content], ascii(content)


GGUF_FAMILIES = ("llama2", "chinese-llama", "llama3", "qwen2", "qwen3")


def write_family(name, folder):
    FAMILIES[name](folder / name)
    chat = load_tokenizer(folder / name)
    model = load_model(folder / name, torch.float32, chat).eval()
    template = fitting_template(chat, portable_form(chat.tokenizer))
    write_gguf(model, chat, template, folder / f"{name}.gguf", "f32")
    return chat, model, folder / f"{name}.gguf"


@pytest.mark.parametrize("name", GGUF_FAMILIES)
def test_gguf_holds_the_model(name, tmp_path):
    """Read back by transformers' own reader, which knows nothing of ours."""
    chat, model, path = write_family(name, tmp_path)
    again = load_model(find_model(path), torch.float32, chat).eval()
    ids = torch.tensor([chat.encode_prompt([{"role": "user", "content": "春风又绿 x = 1"}])])
    with torch.no_grad():
        expected = model(ids).logits
        assert (again(ids).logits - expected).abs().max() < 1e-4 * expected.abs().max()


def test_llama_cpp_answers_as_we_do(tmp_path):
    """Tokens, template, logits and a greedy answer, where llama-cpp-python is installed."""
    llama_cpp = pytest.importorskip("llama_cpp", exc_type=ImportError)
    for name in GGUF_FAMILIES:
        chat, model, path = write_family(name, tmp_path / name)
        other = llama_cpp.Llama(str(path), n_ctx=128, verbose=False, logits_all=True)
        for text in random_strings(200, seed=12):
            if text.strip() and (not name.startswith("qwen") or text.isascii()):
                ids = other.tokenize(text.strip().encode(), add_bos=False, special=False)
                assert ids == chat.encode_content(text), name
        prompt = chat.encode_prompt([{"role": "user", "content": "春风又绿 x = 1"}])
        other.eval(prompt)
        with torch.no_grad():
            expected = model(torch.tensor([prompt])).logits[0, -1]
        logits = torch.tensor(other.scores[len(prompt) - 1])
        assert (logits - expected).abs().max() < 5e-3 * expected.abs().max(), name


def test_gguf_of_what_llama_cpp_would_get_wrong_is_refused(tmp_path):
    for name in ("gemma3", "mistral"):
        with pytest.raises(InputError, match="--gguf: no conversion"):
            write_family(name, tmp_path)


def test_the_harness_has_a_task_for_each_ability():
    names = {path.stem for path in HARNESS.glob("doit_*.yaml")} - {"doit_ood"}
    assert names == {f"doit_{ability.name}" for ability in ABILITIES + OUT_OF_DOMAIN}
    for group, abilities in (("doit", ABILITIES), ("doit_ood", OUT_OF_DOMAIN)):
        text = (HARNESS / f"{group}.yaml").read_text()
        assert text.count("  - doit_") == len(abilities)
        for ability in abilities:
            assert f"  - doit_{ability.name}\n" in text
            own = (HARNESS / f"doit_{ability.name}.yaml").read_text()
            assert f"  ability: {ability.name}\n" in own


@pytest.fixture
def harness(monkeypatch):
    """The module that the harness loads, with stand-ins for what it takes from the harness."""

    class ConfigurableTask:
        def __init__(self, config):
            self.config = SimpleNamespace(**config)

    modules = {name: ModuleType(name) for name in ("lm_eval", "lm_eval.api")}
    for name, holds in (("instance", "Instance"), ("task", "ConfigurableTask")):
        modules[f"lm_eval.api.{name}"] = ModuleType(name)
        setattr(modules[f"lm_eval.api.{name}"], holds, ConfigurableTask)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("harness_doit", HARNESS / "doit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_harness_renders_a_strangers_template_within_a_bound(harness, trained, tmp_path):
    """One that never ends would hang lm-evaluation-harness, which renders it itself."""
    shutil.copytree(trained / "runs/x/checkpoint-1", tmp_path / "model")
    task = harness.DoIT({"metadata": {"pretrained": str(tmp_path / "model")}})
    doc = {"line": json.dumps(line("code", "甲", 1, choices=["甲", "乙", "丙"]))}
    theirs = functools.partial(
        task.tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True
    )
    asked = task.fewshot_context(doc, 0, apply_chat_template=True, chat_template=theirs)
    assert asked == f"<user>{line()['messages'][0]['content']}<eot><assistant>"
    assert task.end_of_turn() == "<eot>"

    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    (tmp_path / "model/chat_template.jinja").write_text(endless)
    task = harness.DoIT({"metadata": {"pretrained": str(tmp_path / "model")}})
    with pytest.raises(InputError, match=r"--apply_chat_template: .* takes too much CPU time"):
        task.fewshot_context(doc, 0, apply_chat_template=True, chat_template=theirs)
    with pytest.raises(InputError, match=r"--apply_chat_template: .* takes too much CPU time"):
        task.end_of_turn()


def test_the_harness_scores_as_we_do(trained):
    """The same verdict on every line, where lm-evaluation-harness is installed."""
    pytest.importorskip("lm_eval")
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", "pretrained=runs/x/checkpoint-1,dtype=float32"]
    command += ["--apply_chat_template", "--include_path", str(HARNESS), "--tasks", "doit,doit_ood"]
    command += ["--metadata", '{"data_dir": "data/curated/valid", "max_gen_toks": 16}']
    command += ["--log_samples", "--output_path", "out"]
    subprocess.run(command, cwd=trained, check=True, capture_output=True)
    for ability in ABILITIES + OUT_OF_DOMAIN:
        (samples,) = (trained / "out").rglob(f"samples_doit_{ability.name}_2*.jsonl")
        theirs = sorted(read_lines(samples), key=lambda sample: sample["doc_id"])
        (details,) = (trained / "evaluate/results/valid").rglob(f"{ability.name}_valid.jsonl")
        ours = read_lines(details)
        assert [s["acc"] for s in theirs] == [verdict["score"] for verdict in ours]
        assert [s["expected"] for s in theirs] == pytest.approx([v["expected"] for v in ours])
