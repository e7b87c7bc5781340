"""Whether a long run keeps its memory, its files and its threads: it is watched for a while, then told to stop.

    python scripts/soak.py --minutes 60
    python scripts/soak.py --minutes 60 metra --preset maze-quick --loop device --replay-capacity 20032

What follows the options is what `urlrl pretrain` gets. Its replay should be full soon, as one that fills up grows by
right. It saves four times as often as by default. Tensorstore, which writes the checkpoints, keeps some memory of
each. The last third of the time is compared with the third before it, with a tolerance of 3 % of the memory: of 400
MiB, growth under 36 MiB an hour is not seen. Linux only. Exit code 1: something grew.
"""

import argparse
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from urlrl.training.stop import INTERRUPTED

DEFAULT = "metra --preset point-quick --replay-capacity 20000"
OFTEN = "--steps 2000000000 --eval-every 4000 --checkpoint-minutes 0.5 --keep-data window --quiet"
SAMPLES = 120  # in the whole time
TOLERANCE = 0.03  # of the memory: the allocator keeps some, and gives it back late


class Sample(NamedTuple):
    """What a process holds at a time."""

    memory: int  # bytes that are resident
    files: int  # open ones
    threads: int


def look(pid: int) -> Sample:
    place = Path("/proc", str(pid))
    pages = int((place / "statm").read_text().split()[1])
    counts = (len(os.listdir(place / folder)) for folder in ("fd", "task"))
    return Sample(pages * resource.getpagesize(), *counts)


def grown(samples: list[Sample]) -> dict[str, tuple[float, float, bool]]:
    """name -> (what there was in the second third of the time, in the last one, whether that is more)."""
    third = len(samples) // 3
    thirds = np.array(samples[third : 2 * third]), np.array(samples[-third:])
    found = {}
    for i, name in enumerate(Sample._fields):
        before, after = (float(np.median(part[:, i])) for part in thirds)
        if name == "memory":
            found[name] = before, after, after > before * (1 + TOLERANCE)
        else:  # A checkpoint opens some for a moment.
            found[name] = before, after, bool(thirds[1][:, i].min() > thirds[0][:, i].min() and after > before)
    return found


def watch(options: list[str], minutes: float, folder: str) -> list[Sample]:
    """Train into `folder` for some minutes from the first checkpoint on: how long it compiles before differs. The first
    third of the time is to fill the replay."""
    command = [sys.executable, "-m", "urlrl", "pretrain", *options, *shlex.split(OFTEN), "--out", f"{folder}/run"]
    print(shlex.join(command), flush=True)
    samples = []
    with subprocess.Popen(command) as process:
        try:
            while not any(Path(folder, "run").glob("checkpoints/*")):
                _wait(process, 1)
            for _ in range(SAMPLES):
                _wait(process, 60 * minutes / SAMPLES)
                samples.append(look(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
    if process.returncode != INTERRUPTED:
        sys.exit(f"The run ended with exit code {process.returncode}: expected {INTERRUPTED}, stopped and saved.")
    return samples


def _wait(process: subprocess.Popen, seconds: float) -> None:
    time.sleep(seconds)
    if process.poll() is not None:
        sys.exit(f"The run ended with exit code {process.returncode}: expected one that goes on.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    options, of_run = parser.parse_known_args()
    if not options.minutes > 0:
        parser.error(f"--minutes is {options.minutes:g}: expected a number above 0.")
    with tempfile.TemporaryDirectory() as folder:
        samples = watch(of_run or shlex.split(DEFAULT), options.minutes, folder)
    found = grown(samples)
    for name, (before, after, more) in found.items():
        unit, size = (" MiB", 2**20) if name == "memory" else ("", 1)
        print(f"{name:8} {before / size:,.0f}{unit}, then {after / size:,.0f}{unit}: {'GREW' if more else 'flat'}")
    sys.exit(any(more for *_, more in found.values()))


if __name__ == "__main__":
    main()
