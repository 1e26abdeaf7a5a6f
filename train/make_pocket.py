"""Make the pocket foundation model: a LLaMA of about a million parameters, random weights.

    python train/make_pocket.py --data_dir data/sample --output_dir runs/pocket

Its sentencepiece tokenizer is trained on the training lines of --data_dir (data/make_sample.py
makes them). The model knows nothing: what it can do later, tuning has taught it.
"""

from collections.abc import Sequence
from pathlib import Path

from growth.command_line import argument_parser, run_script
from growth.files import check_writable
from growth.records import data_files, read_records
from growth.settings import CURATED_SAMPLES


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, make the model, say where it is."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--data_dir", type=Path, default=Path("data/sample"), help="holds curated/1000"
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/pocket"), help="folder of the model"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    args = parser.parse_args(argv)

    files = data_files(args.data_dir / CURATED_SAMPLES, "--data_dir")
    texts = [
        message["content"]
        for path in files
        for record in read_records(path)
        for message in record["messages"]
    ]
    check_writable(args.output_dir, "--output_dir")
    # torch takes its seconds only once the input is known to be good
    from growth.sample.pocket import make_pocket

    parameters = make_pocket(args.output_dir, texts, args.seed)
    print(f"{args.output_dir}: {parameters:,} parameters, random")


if __name__ == "__main__":
    run_script(main)
