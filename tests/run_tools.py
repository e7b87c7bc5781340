"""A tiny run on `point`, and what a run left in its folder: what the tests of runs share."""

import shlex
import shutil
import sys
import time
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file

from urlrl.agents.metra import MetraConfig
from urlrl.config import PretrainConfig
from urlrl.training.log import read_metrics
from urlrl.training.run import RunFolder
from urlrl.types import BatchSpec

TINY = PretrainConfig(
    agent=MetraConfig(width=16, lr=1e-3, batch=BatchSpec(size=32)),
    env="point",
    num_envs=2,
    episode_steps=15,
    rollout_steps=20,  # Not a divisor: episodes run across epochs and checkpoints.
    steps_per_update=13,  # 3 updates for 40 steps
    min_replay=40,
    replay_capacity=150,
    steps=320,
    eval_every=100,
    checkpoint_minutes=0,
)
TINY_OPTIONS = shlex.split(
    "--env point --num-envs 2 --episode-steps 15 --rollout-steps 20 --steps-per-update 13 --min-replay 40 "
    "--replay-capacity 150 --eval-every 100 --checkpoint-minutes 0 --agent.width 16 --agent.lr 1e-3 "
    "--agent.batch.size 32"
)


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "urlrl", "pretrain", "metra", *TINY_OPTIONS, "--out", str(out), *more]


def transitions(run: Path) -> tuple[int, dict[str, np.ndarray]]:
    """(global index of the first, rows) of all the transitions on disk, which must be consecutive."""
    files = sorted((run / "replay").glob("[0-9]*.safetensors"))
    ranges = [tuple(map(int, path.stem.split("-"))) for path in files]
    assert all(end == begin for (_, end), (begin, _) in zip(ranges, ranges[1:])), ranges
    parts = [load_file(path) for path in files]
    return ranges[0][0], {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def saved_arrays(run: Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint by its path, read without the library's own idea of what should be there."""
    import orbax.checkpoint as ocp

    checkpoints = RunFolder(run).checkpoints
    step = checkpoints.steps()[-1]
    checkpoints.restore(step, {})  # Checks the manifest.
    arrays = {}
    for part in sorted(path for path in (checkpoints.folder / str(step)).iterdir() if path.is_dir()):
        tree = ocp.Checkpointer(ocp.StandardCheckpointHandler()).restore(part, args=ocp.args.StandardRestore())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[part.name + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return arrays


def final_state(run: Path) -> dict[str, dict]:
    """All that must not depend on how often a run was stopped: the newest checkpoint's arrays, the transitions that it
    learns from, and the metrics without times."""
    config = RunFolder(run).manifest()["config"]
    begin, rows = transitions(run)
    last = max(0, RunFolder(run).checkpoints.steps()[-1] - config["replay_capacity"] - begin)
    metrics = [
        {name: value for name, value in row.items() if not name.startswith("time/")}
        for row in read_metrics(run / "metrics.jsonl")
    ]
    return {
        "arrays": saved_arrays(run),
        "rows": {name: column[last:] for name, column in rows.items()},
        "metrics": dict(enumerate(metrics)),
    }


def assert_same(a: dict[str, dict], b: dict[str, dict]) -> None:
    for part in a:
        assert a[part].keys() == b[part].keys(), part
        for name, value in a[part].items():
            np.testing.assert_array_equal(value, b[part][name], err_msg=f"{part} {name}", strict=part != "metrics")


def damage_checkpoint(run: Path, step: int, kind: str) -> str:
    """Spoil the largest file (or the manifest) of a checkpoint; returns the checkpoint's folder."""
    folder = run / "checkpoints" / str(step)
    files = sorted(
        (p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"), key=lambda p: p.stat().st_size
    )
    path = folder / "manifest.json" if kind == "manifest" else files[-1]
    if kind == "delete":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content if kind == "flip" else content[: len(content) // 2])
    return str(folder)


def copy_of(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def wait_for(condition, process, seconds=600):  # A guard against waiting for ever, also on a busy machine.
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)


class Notes:
    """A progress line that remembers what it was told."""

    def __init__(self):
        self.notes, self.lines = [], []

    def note(self, line):
        self.notes.append(line)

    def update(self, line):
        self.lines.append(line)

    say = update

    def close(self):
        pass
