"""Lines that stay in their files: the same as lists of them, and a memory that does not grow."""

import json
import tracemalloc

import pytest
from conftest import STUDY, line, read_lines, write_lines

from growth.core.errors import InputError
from growth.data.lines import Lines, checked_lines, index_lines
from growth.data.records import check_training, read_records
from growth.data.settings import build_setting


def written(path, count, length=10):
    return write_lines(path, [line(idx=i, text="字" * length) for i in range(count)])


def test_lines_are_a_sequence_of_what_the_file_holds(tmp_path):
    path = written(tmp_path / "x.json", 5)
    lines, records = index_lines(path, check_training), read_records(path)
    assert lines == records == read_lines(path)
    assert lines[1:4] == records[1:4]
    assert lines[::-2] == records[::-2]
    assert lines.take([3, 0, 3]) == [records[3], records[0], records[3]]
    assert [lines[-1], lines[0]] == [records[-1], records[0]]
    assert lines != records[:4]
    with pytest.raises(IndexError):
        lines[5]


def test_lines_of_several_files_in_any_order(tmp_path):
    paths = [written(tmp_path / f"{name}.json", 3) for name in "ab"]
    lines = Lines(paths)
    for owner in (1, 0):
        for offset, _ in checked_lines(paths[owner], check_training):
            lines.append(owner, offset)
    assert lines == read_lines(paths[1]) + read_lines(paths[0])


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n \n"])
def test_offsets_heed_marks_line_ends_and_blank_lines(tmp_path, mark, end):
    records = [line(idx=i, text="a\u2028b") for i in range(3)]
    texts = [json.dumps(record, ensure_ascii=False) for record in records]
    path = tmp_path / "x.json"
    path.write_bytes((mark + end.join(texts)).encode())
    assert index_lines(path, check_training) == records


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path):
    path = written(tmp_path / "x.json", 3)
    lines = index_lines(path, check_training)
    path.write_bytes(b"x" + path.read_bytes())
    with pytest.raises(InputError, match=r"x.json: was changed while it was read"):
        list(lines)


def memory(work):
    """The peak of Python's memory, in bytes, of what `work` does; nothing else is traced."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_building_holds_places_not_lines(tmp_path):
    path = tmp_path / "synthetic/40960/x.json"
    written(path, 3000, length=2000)
    size = path.stat().st_size
    recipe, built = STUDY.recipe("synthetic-2560"), []
    build_setting(STUDY, recipe, tmp_path, 0)  # what it imports
    peak = memory(lambda: built.append(build_setting(STUDY, recipe, tmp_path, 0)))
    assert peak < size / 20
    assert memory(lambda: sum(1 for _ in built[0]["synthetic"])) < size / 20


def test_scoring_holds_one_line_at_a_time(tmp_path):
    from growth.scoring.results import score_predictions

    # long, and quickly read
    answer = {"generated_response": "A。" + "字" * 5000, "choice_logits": dict.fromkeys("ABCD", 0)}
    for folder, count in (("few", 2), ("in", 400)):
        lines = [line(idx=i) | answer for i in range(count)]
        path = write_lines(tmp_path / folder / "pred_x.json", lines)
    score_predictions(tmp_path / "few", tmp_path / "out", details=True)  # what it imports
    peak = memory(
        lambda: score_predictions(tmp_path / "in", tmp_path / "out", details=True, report=print)
    )
    assert peak < path.stat().st_size / 20
    assert len(read_lines(tmp_path / "out/in-details/x.jsonl")) == 400


def test_a_failure_amid_scoring_leaves_no_details(tmp_path, monkeypatch):
    from growth.scoring import results

    answer = {"generated_response": "A", "choice_logits": dict.fromkeys("ABCD", 0)}
    for name in "ab":
        record = line(text=name) | answer
        record["messages"][0]["content"] += name
        write_lines(tmp_path / f"in/pred_{name}.json", [record])
    judge = results.judge
    monkeypatch.setattr(results, "judge", lambda r, a: 1 / 0 if r["text"] == "b" else judge(r, a))
    with pytest.raises(ZeroDivisionError):
        results.score_predictions(tmp_path / "in", tmp_path / "out", details=True)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
