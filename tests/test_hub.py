"""data/download.py against a hub of our own: a server on the loopback that speaks its protocol."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ABILITY_NAMES

from growth.data.published import AGIEVAL_SETS, DOIT_FULL

ROOT = Path(__file__).resolve().parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DOIT, CMMLU = "ChiyuSONG/dynamics-of-instruction-tuning", "haonan-li/cmmlu"
AGIEVAL = "somebody/agieval-mirror"
CODE = {"loader.py": b"raise SystemExit('executed')\n", "README.md": b"# a data set\n"}


def doit_files():
    """DoIT's layout with its numbers of lines; the lines are short."""

    def lines(kind, count):
        return f'{{"type": "{kind}"}}\n'.encode() * count

    files = {}
    for ability in ABILITY_NAMES:
        files[f"curated/1000/{ability}_1000.json"] = lines(ability, 1000)
        files[f"curated/full/{ability}_full.json"] = lines(ability, DOIT_FULL[ability])
        for split in ("valid", "test"):
            more = ability in ("history", "chinese")
            files[f"curated/{split}/{ability}_{split}.json"] = lines(ability, 100 + 3 * more)
    for subject in ("physician", "teacher_qualification", "urban_and_rural_planner"):
        files[f"curated/test/ceval_{subject}.json"] = lines(f"ceval_{subject}", 40)
    files["synthetic/40960/general_instruction_gpt4_41k.json"] = lines("synthetic", 40960)
    return files


def cmmlu_files():
    """67 subjects: 5 questions each in dev, 11,582 in test together."""

    def table(count):
        rows = "".join(f'{i},"问题,\n第{i}题",甲,乙,丙,丁,A\n' for i in range(count))
        return (",Question,A,B,C,D,Answer\n" + rows).encode()

    files = {f"dev/subject_{i:02}.csv": table(5) for i in range(67)}
    # 66 * 172 + 230 = 11,582
    return files | {f"test/subject_{i:02}.csv": table(230 if i == 66 else 172) for i in range(67)}


def agieval_files():
    """The ten sets with their numbers of lines and of single-answer items."""
    files = {"few_shot_prompts.csv": (",lsat-ar," + ",".join(AGIEVAL_SETS) + "\n").encode()}
    for name, (count, single) in AGIEVAL_SETS.items():
        labels = ["A"] * single + [["A", "B"]] * (count - single)
        items = [
            {"question": "问", "options": ["甲", "乙", "丙", "丁"], "label": x} for x in labels
        ]
        lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
        files[f"v1/{name}.jsonl"] = "".join(lines).encode()
    return files


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Hub(ThreadingHTTPServer):
    """What snapshot_download asks a hub for: the commit, the list of files, the files."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories = {}  # id -> {path: bytes}
        self.gated = set()
        self.seen = []  # (method, path in the repository or API path, Range header, status)
        self.fail_once = set()  # paths whose first GET is answered with 500
        self.cut_once = set()  # paths whose first GET breaks off half way
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def served(self):
        """How often each file was sent from its first byte to its last."""
        return Counter(
            name for method, name, start, status in self.seen if (method, status) == ("GET", 200)
        )


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def note(self, what, status):
        self.server.seen.append((self.command, what, self.headers.get("Range"), status))

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        api = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(/.*)?", path)
        file = re.fullmatch(rf"/datasets/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", path)
        repository = (api or file)[1] if api or file else None
        if repository in self.server.gated:
            self.note(path, 403)
            return self.send(403, X_Error_Code="GatedRepo")
        files = self.server.repositories.get(repository)
        if files is None or (file and file[2] not in files):
            self.note(path, 404)
            code = "RepoNotFound" if files is None else "EntryNotFound"
            return self.send(404, X_Error_Code=code)
        if file:
            return self.send_file(repository, file[2], files[file[2]])
        revision = re.match(r"/(?:revision|tree)/([^/]+)", api[2] or "")
        if revision and revision[1] not in ("v1", COMMIT):
            self.note(path, 404)
            return self.send(404, X_Error_Code="RevisionNotFound")
        self.note(path, 200)
        if (api[2] or "").startswith("/tree/"):
            value = [
                {"type": "file", "path": name, "size": len(content), "oid": etag(name, content)}
                for name, content in files.items()
            ]
        else:
            value = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]}
        return self.send(200, json.dumps(value).encode(), Content_Type="application/json")

    def send_file(self, repository, name, content):
        headers = {
            "ETag": f'"{etag(repository + name, content)}"',
            "X_Repo_Commit": COMMIT,
            "Accept_Ranges": "bytes",
        }
        if self.command == "GET" and name in self.server.fail_once:
            self.server.fail_once.discard(name)
            self.note(name, 500)
            return self.send(500)
        if self.command == "GET" and name in self.server.cut_once:
            self.server.cut_once.discard(name)
            self.note(name, "cut")
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return None
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked:
            start = int(asked[1])
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.note(name, 206)
            return self.send(206, content[start:], **headers)
        self.note(name, 200)
        return self.send(200, content, **headers)


def etag(name, content):
    return hashlib.sha1(name.encode() + content).hexdigest()


@pytest.fixture
def hub():
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def download(hub, tmp_path):
    """Run the script in an empty folder of its own, with an empty cache."""

    def run(*flags, endpoint=hub.url, **more):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            environment.pop(name, None)
            environment.pop(name.upper(), None)
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf")} | more
        command = [sys.executable, str(ROOT / "data/download.py"), "--agieval_repo_id", AGIEVAL]
        (tmp_path / "work").mkdir(exist_ok=True)
        return subprocess.run(
            [*command, *flags],
            cwd=tmp_path / "work",
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )

    return run


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


def files_below(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(result, *parts):
    """Exit 2, nothing on stdout, one message that says all of `parts` and is no traceback."""
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr
    return True


def test_whole_download_then_nothing_more_to_fetch(hub, download, work):
    doit, cmmlu, agieval = doit_files(), cmmlu_files(), agieval_files()
    litter = {"__MACOSX/dev/._subject_00.csv": b"\0", "notes.txt": b"-", "dev/": b""}
    hub.repositories = {
        DOIT: {f"data/{name}": content for name, content in doit.items()} | CODE,
        CMMLU: {"cmmlu_v1_0_1.zip": zipped(cmmlu | litter)} | CODE,
        AGIEVAL: {f"data/{name}": content for name, content in agieval.items()}
        | {"data/v1_1/gaokao-physics.jsonl": b"{}\n"}
        | CODE,
    }
    result = download()
    assert result.returncode == 0, result.stderr
    expected = {f"data/{name}": content for name, content in doit.items()}
    expected |= {f"evaluate/cmmlu/data/{name}": content for name, content in cmmlu.items()}
    expected |= {f"evaluate/agieval/data/{name}": content for name, content in agieval.items()}
    assert files_below(work) == expected
    assert len(result.stdout.splitlines()) == 3
    assert hub.served().keys().isdisjoint(CODE), "only data is downloaded, never code"

    hub.seen.clear()
    again = download()
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("already there") == 3
    assert hub.seen == []


def test_plain_folders_and_other_places(hub, download, work):
    hub.repositories = {"me/copy": cmmlu_files()}
    result = download(
        "--datasets", "cmmlu", "--cmmlu_repo_id", "me/copy", "--cmmlu_dir", "other/place"
    )
    assert result.returncode == 0, result.stderr
    assert files_below(work) == {
        f"other/place/{n}": content for n, content in cmmlu_files().items()
    }


def test_interrupted_download_resumes(hub, download, work):
    broken = "curated/full/math_full.json"
    hub.repositories = {DOIT: doit_files()}
    hub.fail_once = {broken}
    first = download("--datasets", "doit")
    assert refused(first, hub.url, "Run the same command again", "HF_ENDPOINT")
    assert files_below(work) == {}
    fetched = hub.served()
    assert broken not in fetched

    second = download("--datasets", "doit")
    assert second.returncode == 0, second.stderr
    sent = Counter({name: hub.served()[name] for name in doit_files()})
    assert sent == Counter(dict.fromkeys(doit_files(), 1)), "what was finished is not sent again"
    assert files_below(work / "data") == doit_files()


def test_connection_cut_in_a_file_resumes_there(hub, download, work):
    name = "synthetic/40960/general_instruction_gpt4_41k.json"
    files = doit_files()
    # huggingface_hub writes 10 MiB at a time: half of the file has to be more than that
    files[name] = b'{"type": "%s"}\n' % (b"x" * 600) * 40960
    hub.repositories = {DOIT: files}
    hub.cut_once = {name}
    result = download("--datasets", "doit")
    assert result.returncode == 0, result.stderr
    assert files_below(work / "data") == files
    gets = [
        (start, status) for kind, path, start, status in hub.seen if (kind, path) == ("GET", name)
    ]
    assert gets == [(None, "cut"), (f"bytes={10 * 2**20}-", 206)], "only what is missing is sent"


def test_wrong_counts_leave_nothing(hub, download, work):
    doit = doit_files()
    doit["curated/full/math_full.json"] += b'{"type": "math"}\n'
    doit["curated/test/ethics_test.json"] = b'{"type": "ethics"}\n' * 99
    del doit["curated/1000/code_1000.json"]
    cmmlu = cmmlu_files()
    cmmlu["test/subject_07.csv"] += "9,问,甲,乙,丙,丁,A\n".encode()
    agieval = agieval_files()
    agieval["v1/jec-qa-ca.jsonl"] = agieval["v1/jec-qa-ca.jsonl"].replace(
        b'"label": "A"', b'"label": "AB"', 1
    )
    del agieval["few_shot_prompts.csv"]
    hub.repositories = {DOIT: doit, CMMLU: cmmlu, AGIEVAL: agieval}
    assert refused(
        download("--datasets", "doit"),
        "curated/full/math_full.json: 11,502 lines, expected 11,501",
        "curated/test/ethics_test.json: 99 lines, expected 100 or more",
        "curated/1000/code_1000.json: missing",
        "--doit_repo_id",
    )
    assert refused(
        download("--datasets", "cmmlu"),
        "test/*.csv together: 11,583 questions, expected 11,582",
    )
    assert refused(
        download("--datasets", "agieval"),
        "v1/jec-qa-ca.jsonl: 532 items with one answer among four, expected 533",
        "few_shot_prompts.csv: missing",
        "https://github.com/ruixiangcui/AGIEval",
    )
    assert files_below(work) == {}


def test_files_in_the_way(hub, download, work):
    hub.repositories = {AGIEVAL: agieval_files(), CMMLU: cmmlu_files()}
    own = work / "evaluate/agieval/data/v1/logiqa-zh.jsonl"
    own.parent.mkdir(parents=True)
    own.write_bytes(agieval_files()["v1/logiqa-zh.jsonl"] + b"\n\n")
    same = own.with_name("gaokao-physics.jsonl")
    same.write_bytes(agieval_files()["v1/gaokao-physics.jsonl"])
    os.utime(same, (1, 1))
    before = files_below(work)
    assert refused(download("--datasets", "agieval"), str(own.relative_to(work)), "--force")
    assert files_below(work) == before

    forced = download("--datasets", "agieval", "--force")
    assert forced.returncode == 0, forced.stderr
    assert files_below(work / "evaluate/agieval/data") == agieval_files()
    assert same.stat().st_mtime == 1, "an identical file is left alone"

    extra = work / "evaluate/cmmlu/data/dev/mine.csv"
    extra.parent.mkdir(parents=True)
    extra.write_text("a\n")
    assert refused(download("--datasets", "cmmlu"), "dev/mine.csv", "move it")
    assert files_below(work / "evaluate/cmmlu") == {"data/dev/mine.csv": b"a\n"}


@pytest.mark.parametrize("member", ["../../escaped.csv", "/tmp/growth-escaped.csv", "..\\e.csv"])
def test_zip_that_points_outside_is_refused(hub, download, work, member):
    hub.repositories = {CMMLU: {"cmmlu_v1_0_1.zip": zipped(cmmlu_files() | {member: b"x\n"})}}
    assert refused(download("--datasets", "cmmlu"), "cmmlu_v1_0_1.zip", "points out of")
    assert files_below(work) == {}
    assert not Path("/tmp/growth-escaped.csv").exists()


def test_broken_zip(hub, download, work):
    hub.repositories = {CMMLU: {"cmmlu_v1_0_1.zip": b"<html>not found</html>"}}
    assert refused(download("--datasets", "cmmlu"), "cmmlu_v1_0_1.zip", "no zip")
    assert files_below(work) == {}


def test_zip_that_unpacks_to_too_much_is_refused(hub, download, work):
    size = 1_234_567
    archive = zipped(cmmlu_files() | {"dev/large.csv": b"x" * size})
    lied = archive.replace(size.to_bytes(4, "little"), (2**31 - 1).to_bytes(4, "little"))
    hub.repositories = {CMMLU: {"cmmlu_v1_0_1.zip": lied}}
    assert refused(download("--datasets", "cmmlu"), "cmmlu_v1_0_1.zip", "more than the")
    assert files_below(work) == {}


def test_a_revision_is_pinned_and_reported(hub, download, work):
    hub.repositories = {CMMLU: cmmlu_files()}
    result = download("--datasets", "cmmlu", "--revision", "v1")
    assert result.returncode == 0, result.stderr
    assert f"from commit {COMMIT}" in result.stdout
    assert f"/api/datasets/{CMMLU}/revision/v1" in [name for _, name, *_ in hub.seen]
    forced = download("--datasets", "cmmlu", "--revision", COMMIT, "--force")
    assert "0 of them new" in forced.stdout, forced.stderr
    unknown = download("--datasets", "cmmlu", "--revision", "v2", "--force")
    assert refused(unknown, "--revision v2", CMMLU, "no such branch")
    assert refused(download("--revision", "v1"), "--revision v1", "--datasets doit")


def test_a_changed_file_of_known_digest_is_a_warning(hub, download, work):
    """It has the published number of lines, so the download stands."""
    hub.repositories = {DOIT: doit_files(), CMMLU: cmmlu_files()}
    result = download("--datasets", "doit", "cmmlu")
    assert result.returncode == 0, result.stderr
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("warning:")]
    assert "curated/1000/creative_writing_1000.json" in warning
    assert "sha256" in warning


def test_an_unreachable_hub_and_the_way_without_it(download, work):
    endpoint = "http://127.0.0.1:9"  # the discard port: nobody listens
    for result in (download(endpoint=endpoint), download(endpoint=endpoint, HF_HUB_OFFLINE="1")):
        assert refused(
            result, endpoint, "HF_ENDPOINT", "by hand", "curated/ and synthetic/ in data/"
        )
    assert files_below(work) == {}


def test_a_cache_that_cannot_be_written(hub, download, work):
    hub.repositories = {CMMLU: cmmlu_files()}
    result = download("--datasets", "cmmlu", HF_HOME="/dev/null/cache")
    assert refused(result, "/dev/null/cache", "the hub's cache is")
    assert files_below(work) == {}


def test_no_such_repository_or_no_access(hub, download):
    hub.gated = {CMMLU}
    assert refused(download("--datasets", "agieval"), AGIEVAL, "--agieval_repo_id", "404")
    assert refused(download("--datasets", "cmmlu"), CMMLU, "gated", "hf auth login")
    malformed = download("--datasets", "doit", "--doit_repo_id", "a/b/c")
    assert refused(malformed, "--doit_repo_id", "a/b/c")


def test_destination_is_a_file(download, work):
    work.mkdir()
    (work / "data").write_text("")
    assert refused(download("--datasets", "doit"), "data", "needs a folder")
