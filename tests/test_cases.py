"""Small inputs that failed once (tests/cases), those that no other file of tests has."""

import io
import random
import shutil
import zipfile

import pytest
from conftest import CASES, ROOT, line, run, write_lines

from growth.core.errors import InputError
from growth.data.hub import _unpack
from growth.data.records import read_records


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("extra_surrogate.json", "half a surrogate pair"),
        ("idx_1e999.json", "1e999 is too large"),
        ("surrogate_in_other_field/valid/biology_valid.json", "half a surrogate pair"),
        ("infinite_number/valid/biology_valid.json", "1e400 is too large"),
    ],
)
def test_what_no_file_can_hold_again_is_refused_where_it_is_read(name, message):
    with pytest.raises(InputError, match=rf"{name}:1: .*{message}"):
        read_records(CASES / name)


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ('"\\ud83d"', "half a surrogate"),
        ('{"a": ["\\udc00x"]}', "half a surrogate"),
        ("-1e400", "-1e400 is too large"),
        ("[1e309]", "1e309 is too large"),
        ("NaN", "NaN is not JSON"),
    ],
)
def test_any_field_of_a_line_can_be_written_again(tmp_path, field, says):
    good = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'
    path = write_lines(tmp_path / "x.json", [good + "}", f'{good}, "extra": {field}}}'])
    with pytest.raises(InputError, match=rf"x.json:2: .*{says}"):
        read_records(path)
    whole = write_lines(tmp_path / "y.json", [f'{good}, "extra": "\\ud83d\\ude00"}}'])
    assert read_records(whole)[0]["extra"] == "😀"


def test_a_prediction_of_such_a_line_is_refused_before_a_model_is_loaded(checkout):
    data = CASES / "surrogate_in_other_field/valid"
    flags = ("--model_size", "x", "--tag", "c", "--eval_data_path", data)
    model = ("--model_name_or_path", ROOT / "train/pocket")
    done = run("evaluate/predict.py", *model, *flags, cwd=checkout, check=False)
    assert done.returncode == 2
    assert "biology_valid.json:1: " in done.stderr
    assert not (checkout / "evaluate/pred-data").exists()


@pytest.mark.parametrize("error", ["EOFError", "IndexError", "LZMAError"])
def test_a_damaged_zip_is_one_message(tmp_path, error):
    with pytest.raises(InputError, match=rf"zip-{error}.zip: (no zip that can be read|refused)"):
        _unpack(CASES / f"zip-{error}.zip", tmp_path / "out")


def test_a_zip_cut_or_changed_anywhere_is_read_or_one_message(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("dev/a.csv", "test/b.csv"):
            archive.writestr(name, ",Question\n" * 50)
    whole, chance = buffer.getvalue(), random.Random(0)
    spoilt = [whole[:size] for size in range(0, len(whole), 3)]
    for _ in range(300):
        changed = bytearray(whole)
        changed[chance.randrange(len(whole))] = chance.randrange(256)
        spoilt.append(bytes(changed))
    refused = 0
    for number, content in enumerate(spoilt):
        path = tmp_path / "x.zip"
        path.write_bytes(content)
        try:
            _unpack(path, tmp_path / str(number))
        except InputError:
            refused += 1
    assert refused > len(whole) / 3


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({f"{i}.csv": b"" for i in range(10_001)}, "10,001 members"),
        ({"a.csv": b"", "pad.bin": bytes(2**25)}, "a zip of 33,"),
        ({"a" * 300 + ".csv": b"x"}, "no zip that can be read"),
        ({"a.csv": b"x", "a.csv/b.csv": b"x"}, "no zip that can be read"),
    ],
)
def test_zips_of_many_or_huge_members_or_odd_names_are_refused(tmp_path, members, says):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match=rf"x.zip: .*{says}"):
        _unpack(path, tmp_path / "out")


def test_a_byte_order_mark_in_a_tokenizer_s_config_is_one_message(checkout, tmp_path):
    model = shutil.copytree(ROOT / "train/pocket", tmp_path / "model")
    shutil.copy(CASES / "llama_bom_tokenizer_config/tokenizer_config.json", model)
    write_lines(tmp_path / "lines/x.json", [line("biology", "A")])
    flags = ("--model_size", "x", "--tag", "c", "--eval_data_path", tmp_path / "lines")
    model = ("--model_name_or_path", model)
    done = run("evaluate/predict.py", *model, *flags, cwd=checkout, check=False)
    assert done.returncode == 2
    assert "tokenizer_config.json: not JSON in UTF-8" in done.stderr
