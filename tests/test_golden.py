"""The recorded facts themselves: made by the procedure that made those of licensed texts."""

import pytest
from conftest import ROOT, read_lines


def assert_agree(found, recorded):
    """Ids and texts exactly, numbers of fp32 to 1e-4."""
    for fact, expected in zip(found, recorded, strict=True):
        assert fact.keys() == expected.keys()
        for name, value in expected.items():
            if name in ("choice_logits", "bare_logits"):
                assert fact[name] == pytest.approx(value, rel=1e-4, abs=1e-3)
            elif name in ("loss_sum", "generated_ppl"):
                assert fact[name] == pytest.approx(value, rel=1e-4)
            else:
                assert fact[name] == value, name


def test_the_facts_are_what_the_procedure_gives(procedure):
    folder = ROOT / "tests/golden"
    for name, facts in procedure.record(folder / "tiny-llama").items():
        assert_agree(facts, read_lines(folder / name))


def test_the_procedure_gives_the_facts_of_licensed_texts(procedure, shared_golden):
    """Skips in a public clone, and stands for all tests on the facts of ../shared alone."""
    recorder = procedure.Recorder(shared_golden / "tiny-llama")
    # every fourth is enough to see it
    conversations = read_lines(shared_golden / "tokenised_conversations.jsonl")[::4]
    assert_agree([recorder.conversation(fact["messages"]) for fact in conversations], conversations)
    predictions = read_lines(shared_golden / "predictions.jsonl")[::4]
    found = [
        recorder.generation(fact["messages"])
        if fact["kind"] == "generate"
        else recorder.perplexity(fact["messages"], fact["choices"])
        for fact in predictions
    ]
    assert_agree(found, predictions)
