"""FRE from data to the scripts' pictures and tables, on a run that learned next to nothing."""

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import urlrl
from urlrl.agents.fb import FBConfig
from urlrl.agents.fre import FREConfig
from urlrl.config import OfflineConfig
from urlrl.errors import UserError
from urlrl.learners.skills import SkillSpace
from urlrl.tasks.catalogue import FRE_TASKS
from urlrl.types import BatchSpec
from urlrl.verbs.collect import collect
from urlrl.verbs.evaluate_suite import SUITES, evaluate_suite

pytestmark = pytest.mark.slow
SUITE = "fre-v1/maze-rings_mass"
FEW = ("reach_1", "move_left", "path_loop")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """FRE on x, y, vx, vy, and FB on place cells of the same walks."""
    place = tmp_path_factory.mktemp("fre")
    data = {
        end: collect(f"maze-rings-mass{end}-random", place / f"data{end}", steps=2_000, quiet=True)
        for end in ("", "-cells")
    }
    fre = FREConfig(
        z=SkillSpace("gaussian", 8), batch=BatchSpec(size=16, futures=3), rewards=("goal", "field"),
        position=(0, 1), encode=8, encoder_width=16, encoder_depth=1, warmup=4, width=16, depth=1,
    )  # fmt: skip
    fb = FBConfig(z=SkillSpace("wide_sphere", 8), width=16, backward_width=16, batch=BatchSpec(size=16))
    made = {}
    for name, config, end in (("fre", fre, ""), ("fb", fb, "-cells")):
        run = OfflineConfig(
            agent=config, agent_name=name, data=str(data[end].folder), normalizer="fit", updates=4, steps=8
        )
        made[name] = urlrl.pretrain(run, place / name, quiet=True)
    return made


@pytest.fixture
def few_tasks(monkeypatch):
    for end in ("", "_cells"):
        suite = SUITES[f"{SUITE}{end}"]
        tasks = tuple(f"maze_rings_mass{end}_{kind}" for kind in FEW)
        monkeypatch.setitem(SUITES, suite.name, dataclasses.replace(suite, tasks=tasks, episodes=3, floor_episodes=2))


def script(monkeypatch, name):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    return importlib.import_module(name)


def test_the_suite_tells_places_by_goals_too(runs, few_tasks, tmp_path):
    assert set(FRE_TASKS["maze-rings_mass"]) >= {f"maze_rings_mass_{kind}" for kind in FEW}
    result = evaluate_suite(runs["fre"], SUITE, quiet=True, json_file=tmp_path / "r.json")
    told = [(row["task"].removeprefix("maze_rings_mass_"), row["prompt"]) for row in result["rows"]]
    assert [one for one in told if one != ("reach_1", "reward")] == [  # Of few samples none may be at the place.
        ("reach_1", "goal"), ("move_left", "reward"), ("path_loop", "reward"),
    ]  # fmt: skip
    assert result["samples"] == 32 and all(row["ceiling"][1] == "value iteration" for row in result["rows"])
    rewards = [row for row in result["rows"] if row["prompt"] == "reward"]
    assert all(row["fit"]["samples"] - row["fit"]["held_out"] == 32 for row in rewards)
    assert not any("has no goal" in note for note in result["notes"])


def test_prompt_sizes_of_agents_that_see_differently_are_compared(runs, few_tasks, tmp_path, monkeypatch, capsys):
    prompt_size = script(monkeypatch, "prompt_size")
    options = prompt_size.Options((runs["fre"], runs["fb"]), SUITE, tmp_path / "sizes", samples=(2, 64))
    prompt_size.main(options)
    rows = json.loads((tmp_path / "sizes.json").read_text())["rows"]
    assert {(row["agent"], row["task"], row["samples"]) for row in rows} == {
        (agent, kind, samples) for agent in ("fre", "fb") for kind in FEW for samples in (2, 64)
    }
    for mine, other in zip(rows[: len(rows) // 2], rows[len(rows) // 2 :]):  # the same bounds, the same samples
        assert all(mine[key] == other[key] for key in ("task", "samples", "random", "zero action", "ceiling", "told"))
        best = max(mine["random"], mine["zero action"])
        if mine["ceiling"] - best >= 0.2 * mine["ceiling"]:
            assert prompt_size.score(mine) == pytest.approx((mine["return"] - best) / (mine["ceiling"] - best))
        else:
            assert prompt_size.score(mine) is None
        assert mine["told"] or mine["return"] == mine["random"]
    assert "| fre | all |" in capsys.readouterr().out
    assert len(Image.open(tmp_path / "sizes.png").convert("RGB").getcolors(1 << 24)) > 50
    with pytest.raises(UserError, match="is for agents pretrained on"):
        prompt_size.main(dataclasses.replace(options, suite="fre-v1/walker"))


def test_encodings_are_drawn_of_families_and_of_tasks(runs, tmp_path, monkeypatch):
    show_encodings = script(monkeypatch, "show_encodings")
    for name, tasks in (("families", ()), ("tasks", ("maze_rings_mass_path_loop",))):
        show_encodings.main(show_encodings.Options(runs["fre"], tmp_path / f"{name}.png", tasks=tasks, functions=1))
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        assert picture.std() > 20 and picture.shape[0] > 200 * max(len(tasks), 2 - len(tasks))
    with pytest.raises(UserError, match="expected fre in a maze"):
        show_encodings.main(show_encodings.Options(runs["fb"]))
    with pytest.raises(UserError, match="is for agents pretrained on"):
        show_encodings.main(show_encodings.Options(runs["fre"], tasks=("walker_run",)))
