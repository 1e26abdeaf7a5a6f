"""Try faults on every stage; afterwards its files must be those of a quiet run, byte for byte.

    python tests/faults/campaign.py --faults 400 --seed 0

Kills and interrupts at random moments; kills, interrupts, I/O errors and a full disk at the N-th
file operation; a full tmpfs; files cut off; the same command twice at once. A trial is a stage with
one fault, now and then a second one while it recovers. It survived if nothing but our own messages
was said, and the same command, run again, leaves exactly the files of an undisturbed run: no half
file, no lock, no temporary name. After a file was cut off, that or a refusal in one line.

Trial `--only N` of a seed is the same again, and is kept in --folder for a look.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ["GIT_DIR"] = os.devnull  # records would differ where somebody commits meanwhile
sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

import faults  # noqa: E402
import study  # noqa: E402
from conftest import processes_of  # noqa: E402

# How often each kind is drawn.
KINDS = {
    "kill at a moment": 4,
    "interrupt at a moment": 2,
    f"{faults.KILL} at an operation": 6,
    f"{faults.INTERRUPT} at an operation": 3,
    f"{faults.IO_ERROR} at an operation": 3,
    f"{faults.DISK_FULL} at an operation": 2,
    "full tmpfs": 3,
    "cut off": 4,
    "two at once": 3,
}
_SECOND_FAULT = 0.25  # the share of trials in which recovering is disturbed too
# What Python says of a Ctrl-C that comes amid its own clean-up.
_IGNORED = re.compile(r"Exception ignored in.*?\nKeyboardInterrupt:? *\n", re.DOTALL)
REFUSED, INTERRUPTED = 2, 130
_BUSY, _DONE = "is at work in it", "is there already"


class Trial:
    """One stage with one fault.

    Args:
        quiet: the undisturbed study.
        index: of the stage.
        chance: all that is random.
        folder: an empty one.
    """

    def __init__(self, quiet: study.Quiet, index: int, chance: random.Random, folder: Path) -> None:
        self.quiet, self.index, self.chance = quiet, index, chance
        self.stage = study.STAGES[index]
        self.folder, self.log = folder / "study", folder / "log.txt"
        self.expected = study.contents(quiet.before(index + 1))

    def run(self, kind: str) -> None:
        """Try it.

        Raises:
            AssertionError: it did not survive; it says how.
        """
        if kind == "cut off":
            self.cut_off()
            return
        if kind == "full tmpfs":
            self.on_full_tmpfs()
            return
        faults.copy_tree(self.quiet.before(self.index), self.folder)
        if kind == "two at once":
            self.two_at_once()
        else:
            self.disturb(kind)
            if self.chance.random() < _SECOND_FAULT:
                again = [name for name in KINDS if name.endswith(("moment", "operation"))]
                self.disturb(self.chance.choice(again))
        self.recover()

    def disturb(self, kind: str) -> None:
        """Run the stage with a fault in it."""
        what, _, where = kind.partition(" at ")
        if where == "a moment":
            process = study.begin(self.stage, self.folder, self.log)
            time.sleep(self.chance.uniform(0, self.quiet.seconds[self.index]))
            number = signal.SIGKILL if what == faults.KILL else signal.SIGINT
            os.kill(process, number)  # not yet waited for, so it is still this one
        else:
            operation = self.chance.randint(1, self.quiet.operations[self.index])
            self.say(f"{what} at operation {operation}")
            before = faults.at_operation(operation, what)
            process = study.begin(self.stage, self.folder, self.log, before)
        code = study.finish(process)
        allowed = {faults.KILL: (0, -signal.SIGKILL), faults.INTERRUPT: (0, INTERRUPTED)}
        done = (REFUSED,) if _DONE in self.said() else ()
        self.check(code, (*allowed.get(what, (0, REFUSED)), *done))
        self.wait_for_workers(process)

    def two_at_once(self) -> None:
        """Run the stage twice."""
        waits = self.chance.random() < 0.5
        first = study.begin(self.stage, self.folder, self.log)
        time.sleep(self.chance.uniform(0, 0.7 * self.quiet.seconds[self.index]))
        more = ["--wait"] if waits else []
        second = study.begin(self.stage, self.folder, self.log, more=more)
        codes = [study.finish(process) for process in (first, second)]
        for code in codes:
            self.check(code, (0, REFUSED))
        text = self.said()
        assert 0 in codes, f"neither of two was done: {text}"
        if REFUSED in codes:
            assert _BUSY in text or _DONE in text, f"refused for another reason: {text}"

    def on_full_tmpfs(self) -> None:
        """Run the stage on a small disk, in a process with mounts of its own."""
        before, after = (faults.pages(self.quiet.before(self.index + i)) for i in (0, 1))
        size = before + self.chance.randint(4, max(5, after - before))
        self.say(f"a disk of {size} pages, where {before} are taken and {after} would be")

        def inside() -> int:
            self.folder.mkdir()
            faults.own_mounts()
            faults.mount_small(self.folder, size)
            faults.copy_tree(self.quiet.before(self.index), self.folder)
            process = study.begin(self.stage, self.folder, self.log)
            code = study.finish(process)
            self.check(code, (0, REFUSED))
            if code == REFUSED:
                assert "disk is full" in self.said(), "does not say that the disk is full"
            self.wait_for_workers(process)
            faults.enlarge(self.folder)
            self.recover()
            return 0

        code = study.finish(study.forked(inside, self.log))
        assert code == 0, self.said()

    def cut_off(self) -> None:
        """Cut one of the stage's files off, and run it and all that follow again."""
        faults.copy_tree(self.quiet.before(self.index + 1), self.folder)
        name = self.chance.choice(self.quiet.made_by(self.index))
        how = self.chance.choice(("empty", "half", "line"))
        self.say(f"{name}: {how}")
        faults.cut(self.folder / name, how)
        last = self.index
        for last in range(self.index, len(study.STAGES)):
            process = study.begin(study.STAGES[last], self.folder, self.log)
            code = study.finish(process)
            self.check(code, (0, REFUSED))
            if code == REFUSED and _DONE not in self.said():
                break
        found, expected = (
            study.contents(folder) for folder in (self.folder, self.quiet.before(last + 1))
        )
        # A refused stage may have begun; what is there of its files must be right.
        for each, content in found.items():
            assert each == name or expected.get(each) == content, f"{each} differs, in silence"

    def recover(self) -> None:
        """Run the stage again, undisturbed; its files must be those of the quiet run."""
        code = study.finish(study.begin(self.stage, self.folder, self.log))
        if code == REFUSED and self.said().rstrip().splitlines()[-1:]:
            assert _DONE in self.said().splitlines()[-1], self.said()
        else:
            assert code == 0, f"run again, it ended in {code}: {self.said()}"
        found = study.contents(self.folder)
        wrong = [
            name
            for name in {**found, **self.expected}
            if found.get(name) != self.expected.get(name)
        ]
        assert not wrong, f"not those of a quiet run: {', '.join(sorted(wrong)[:5])}"

    def check(self, code: int, allowed: tuple[int, ...]) -> None:
        """Only these exit codes, and never a traceback."""
        text = _IGNORED.sub("", self.said())
        assert "Traceback" not in text, text
        assert code in allowed, f"ended in {code}: {text}"

    def said(self) -> str:
        """The output of the trial so far."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def say(self, words: str) -> None:
        """Note what the trial does."""
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(f"[{words}]\n")

    def wait_for_workers(self, session: int) -> None:
        """What a killed stage had started ends by itself."""
        deadline = time.monotonic() + 30
        while left := processes_of(session):
            assert time.monotonic() < deadline, f"its processes {left} go on"
            time.sleep(0.01)


def can_mount(folder: Path) -> bool:
    """Whether the system lets a process have mounts of its own."""

    def work() -> int:
        faults.own_mounts()
        return 0

    return study.finish(study.forked(work, folder / "mounts.txt")) == 0


def draw(seed: int, number: int, kinds: dict[str, int]) -> tuple[str, int, random.Random]:
    """The kind, the stage and the chances of a trial."""
    chance = random.Random(f"{seed}/{number}")
    kind = chance.choices(list(kinds), list(kinds.values()))[0]
    return kind, chance.randrange(len(study.STAGES)), chance


def attempt(quiet: study.Quiet, seed: int, number: int, kinds: dict[str, int], folder: Path) -> str:
    """One trial; why it failed, empty where it survived."""
    kind, index, chance = draw(seed, number, kinds)
    place = folder / f"trial-{number}"
    place.mkdir()
    try:
        Trial(quiet, index, chance, place).run(kind)
    except AssertionError as error:
        stage = study.STAGES[index].name
        return f"trial {number} of seed {seed}, {stage}, {kind}: {error}\n({place})"
    shutil.rmtree(place)
    return ""


def report(tried: Counter[tuple[str, str]], failed: Counter[tuple[str, str]]) -> str:
    """Survived of tried, by kind and stage."""
    names = [stage.name for stage in study.STAGES]
    rows = [["survived of tried", *names, "all"]]
    for kind in (*KINDS, "all"):
        cells = []
        for name in (*names, "all"):
            tries, fails = (
                sum(n for (k, s), n in counts.items() if kind in (k, "all") and name in (s, "all"))
                for counts in (tried, failed)
            )
            cells.append(f"{tries - fails}/{tries}" if tries else "-")
        rows.append([kind, *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main() -> None:
    """Parse the flags, try the faults, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=400, help="how many trials")
    parser.add_argument("--seed", type=int, default=0, help="of the trials")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of single trials")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in")
    parser.add_argument("--quiet", type=Path, help="where the quiet run is, or is left for others")
    args = parser.parse_args()
    began = time.monotonic()
    # Begun in the background, a process ignores Ctrl-C, and so would the stages.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    study.import_all()
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        folder = args.folder or Path(temporary)
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        kinds = dict(KINDS)
        if not can_mount(folder):
            print("full tmpfs: left out, this system lets nobody mount one")
            del kinds["full tmpfs"]
        kept = (args.quiet or folder / "quiet").resolve()
        if kept.exists():
            quiet = study.Quiet.read(kept)
        else:
            quiet = study.quiet_study(kept, faults.count_operations)
        tried: Counter[tuple[str, str]] = Counter()
        failed: Counter[tuple[str, str]] = Counter()
        try:
            for number in args.only or range(args.faults):
                kind, index, _ = draw(args.seed, number, kinds)
                where = kind, study.STAGES[index].name
                why = attempt(quiet, args.seed, number, kinds, folder)
                tried[where] += 1
                if why:
                    failed[where] += 1
                    print(why, flush=True)
        except KeyboardInterrupt:
            print("stopped before the end")
        print(report(tried, failed))
        survived = tried.total() - failed.total()
        print(
            f"seed {args.seed}: {survived} of {tried.total()} faults survived, "
            f"{time.monotonic() - began:.0f} s"
        )
    sys.exit(0 if survived == tried.total() else 1)


if __name__ == "__main__":
    main()
