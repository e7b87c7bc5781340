"""Protocols that score a run on many tasks. A protocol is fixed: another number in it is another name."""

from dataclasses import dataclass

import numpy as np

from urlrl.adaptation.config import AdaptConfig, OffPolicyConfig
from urlrl.adaptation.ladder import Cell
from urlrl.errors import unknown
from urlrl.evaluation.stats import over_seeds
from urlrl.tasks.catalogue import URLB_TASKS


@dataclass(frozen=True)
class Suite:
    """Every task, from every snapshot, by every method; `scratch` has no snapshot and is run once per task."""

    name: str
    tasks: tuple[str, ...]
    snapshots: tuple[int, ...]  # pretraining steps
    methods: tuple[str, ...]
    config: AdaptConfig


# URLB's protocol (https://arxiv.org/abs/2110.15191): 100k steps of fine-tuning, an update of 1,024 transitions every 2
# steps, 10 deterministic episodes every 10k steps from step 0 on, the last one counts, divided by the expert's return.
# Ours differs where the released code errs: the pretrained policy acts from the first step, critics and targets are
# carried over, its skill is searched for. It also differs in the learner, which is the agent's own with one-step
# returns (there DDPG with three-step ones for all), and in 8 environments that are stepped together (there one).
URLB = {
    f"urlb-v1/{domain}": Suite(
        name=f"urlb-v1/{domain}",
        tasks=tasks,
        snapshots=(100_000, 500_000, 1_000_000, 2_000_000),
        methods=("zero_shot", "finetune", "scratch"),
        config=AdaptConfig(
            steps=100_000, eval_every=10_000, eval_episodes=10, off_policy=OffPolicyConfig(interval=2, batch=1024)
        ),
    )
    for domain, tasks in URLB_TASKS.items()
}


def find_suite(name: str) -> Suite:
    """A suite of `URLB`. Raises UserError that offers the nearest name."""
    if name not in URLB:
        raise unknown("suite", name, URLB)
    return URLB[name]


def aggregate(cells: dict[str, list[Cell]], experts: dict[str, float]) -> dict:
    """Of one snapshot's and method's cells by task: the last return of each seed, in its own units and as a share of
    the expert's, as URLB has it, and what the shares come to over tasks and seeds."""
    final = {task: [float(cell.returns[-1]) for cell in mine] for task, mine in cells.items() if mine}
    shares = {task: [value / experts[task] for value in values] for task, values in final.items()}
    return {
        "returns": final,
        "normalised": shares,
        "estimate": over_seeds([np.array(values) for values in shares.values()]).to_json(),
    }
