"""Pretraining of several seeds, each of which is an ordinary run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from urlrl.config import RunConfig
from urlrl.runs.begin import begin
from urlrl.runtime import enable_compilation_cache
from urlrl.training.run import NONE, RunFolder
from urlrl.verbs.launch import Work, check_launcher, is_trained, launch, raise_failed, share_memory
from urlrl.verbs.pretrain import seed_folders


def pretrain_each(
    config: RunConfig,
    seeds: Sequence[int],
    out: Path | str,
    *,
    workers: int = 1,
    continue_with: Mapping[str, Any] = NONE,
    quiet: bool = False,
    command: str | None = None,
) -> list[Path]:
    """Pretrain one agent per seed into the folders `out/seed-<n>`; continues runs of the same config that are there,
    and leaves alone those that are done.

    Args:
        config: as for `pretrain`; its seed is not looked at.
        seeds: distinct ones.
        workers: how many are trained at a time, each in a process of its own; one is trained in this process.
        continue_with, quiet, command: as for `pretrain`.

    Returns:
        The folders, in order of `seeds`; each is a run as `pretrain` makes them.

    Raises:
        UserError: bad config, environment or data, or a folder holds another run; nothing was trained.
        RunsFailed: at the end, if runs failed; the others are done.
        Interrupted: a signal stopped the runs; they were saved and can be continued.
    """
    check_launcher("local", workers)
    share_memory(workers)
    folders = seed_folders(out, seeds)
    enable_compilation_cache()
    with begin(config, getattr(config, "loop", "host") == "device") as begun:
        configs = {seed: replace(begun.config, seed=seed) for seed in seeds}
    wanted = {seed: RunFolder(folder).check(configs[seed], continue_with) for seed, folder in folders.items()}
    work = [
        Work(f"seed {seed}", folders[seed], configs[seed], command, continue_with)
        for seed in seeds
        if not is_trained(folders[seed], wanted[seed])
    ]
    raise_failed(launch(work, workers=workers, quiet=quiet), len(seeds))
    return list(folders.values())
