"""One launch, many processes."""

import subprocess
import sys

from growth.core.distributed import DistributedState


def test_one_process_needs_no_launcher():
    alone = DistributedState()
    assert alone.is_main_process
    assert alone.shard([1, 2, 3]) == [1, 2, 3]
    assert alone.gather("x") == ["x"]


def test_shards_are_disjoint_and_cover_everything():
    items = list(range(11))
    shards = [DistributedState(rank, 3).shard(items) for rank in range(3)]
    assert sorted(item for shard in shards for item in shard) == items
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_each_process_gathers_what_all_have(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from growth.core.distributed import distributed_state\n"
        "state = distributed_state()\n"
        # One write a line: unbuffered, print writes the line's end apart, and the two may mix.
        "print(f'{state.gather(state.rank * 10)}\\n', end='', flush=True)\n"
        "state.leave()\n"
    )
    launch = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", script)
    done = subprocess.run([sys.executable, *launch], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[0, 10]"] * 2
