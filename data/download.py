"""Download DoIT, CMMLU and AGIEval from the hub, check their counts, put them in place.

    python data/download.py
    HF_ENDPOINT=https://some.mirror python data/download.py --datasets doit

makes
    data/curated/{1000,full,valid,test}/*.json     DoIT, 41,436 training lines in full/
    data/synthetic/40960/*.json                    DoIT, 40,960 lines
    evaluate/cmmlu/data/{dev,test}/*.csv           CMMLU, 67 subjects, 11,582 test questions
    evaluate/agieval/data/v1/*.jsonl               AGIEval, ten Chinese choice sets, 4,299 lines
    evaluate/agieval/data/few_shot_prompts.csv

Files come through huggingface_hub (HF_ENDPOINT: the hub or a mirror of it; HF_HOME: its cache). An
interrupted download resumes when the command is run again. A data set is put in place only when its
counts are the published ones; one that is in place already is not downloaded again. The commit that
was downloaded is reported; `--datasets doit --revision COMMIT` downloads that one again.

AGIEval's official publication is the GitHub repository ruixiangcui/AGIEval. The hub repository that
--agieval_repo_id names is a mirror of it that could not be verified when this was written; whatever
mirror is used, the counts are checked.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

if find_spec("growth") is None:
    sys.stderr.write(
        "error: the package growth is not installed in this Python; run "
        "`source .venv/bin/activate`, or the three install lines of README.md first\n"
    )
    sys.exit(2)

from growth.core.cli import add_options, argument_parser, run_script
from growth.core.errors import InputError
from growth.core.options import OutputOptions
from growth.data.hub import provide
from growth.data.published import DATASETS


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, provide each data set, report on it."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--datasets", nargs="+", choices=list(DATASETS), default=list(DATASETS), help="which ones"
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder for DoIT")
    for name in ("cmmlu", "agieval"):
        parser.add_argument(
            f"--{name}_dir",
            type=Path,
            default=Path(f"evaluate/{name}/data"),
            help=f"folder for {DATASETS[name].title}",
        )
    for name, dataset in DATASETS.items():
        mirror = " (an unverified mirror, see above)" if name == "agieval" else ""
        parser.add_argument(
            f"--{name}_repo_id",
            default=dataset.repo_id,
            help=f"hub dataset repository of {dataset.title}{mirror}",
        )
    parser.add_argument(
        "--revision",
        help="branch, tag or commit of the one repository in --datasets; default: the main branch",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="download what is in place too, and replace files that differ",
    )
    add_options(parser, OutputOptions)
    flags = parser.parse_args(argv)
    if flags.revision is not None and len(set(flags.datasets)) > 1:
        raise InputError(
            f"--revision {flags.revision}: of which repository? Name one with --datasets, such as "
            "--datasets doit"
        )

    folders = {"doit": flags.data_dir, "cmmlu": flags.cmmlu_dir, "agieval": flags.agieval_dir}
    for name in dict.fromkeys(flags.datasets):
        repo_id = getattr(flags, f"{name}_repo_id")
        options = {"revision": flags.revision, "force": flags.force, "wait": flags.wait}
        report = provide(DATASETS[name], repo_id, folders[name], **options)
        print(report, flush=True)


if __name__ == "__main__":
    run_script(main)
