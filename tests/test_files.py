"""Files that are there whole or not at all."""

import pytest

from growth.core.files import replacing, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.json"]
    with pytest.raises(ValueError):
        write_json(path, float("nan"))
    assert path.read_text() == "old"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "setting"
    for content in ("a", "b"):
        with replacing(folder) as temporary:
            write_text(temporary / f"{content}.json", content)
        assert names(folder) == [f"{content}.json"]
    with pytest.raises(ZeroDivisionError), replacing(folder) as temporary:
        write_text(temporary / "c.json", "c")
        raise ZeroDivisionError
    assert names(folder) == ["b.json"]
    assert names(tmp_path) == ["setting"]


def test_what_a_kill_left_behind_goes_the_next_time(tmp_path):
    (tmp_path / ".setting.tmp").mkdir()
    write_text(tmp_path / ".setting.tmp/half.json", "half")
    with replacing(tmp_path / "setting") as temporary:
        write_text(temporary / "a.json", "a")
    assert names(tmp_path) == ["setting"]
    assert names(tmp_path / "setting") == ["a.json"]
