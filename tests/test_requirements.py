"""What is installed: exact pins, a reason for each, and a lock that has the same versions."""

import re

from conftest import ROOT

PIN = re.compile(r"^([\w.-]+)==([\w.]+)", re.MULTILINE)
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_has_the_pinned_versions():
    locked = {normal(name): version for name, version in PIN.findall(LOCK)}
    pinned = PIN.findall((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    assert len(pinned) > 20
    assert {name: locked.get(normal(name)) for name, _ in pinned} == dict(pinned)


def test_every_package_of_the_lock_has_hashes():
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) > 80
    assert [entry.split("\n")[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_every_pin_has_its_reason():
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        assert not PIN.match(line) or "#" in line, line
