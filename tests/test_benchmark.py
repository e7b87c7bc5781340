"""The benchmark runs at tiny sizes, writes JSON, and counts what it says it counts. Nothing here is timed."""

import json
from pathlib import Path

import numpy as np
import pytest

from urlrl.presets import preset

SCRIPTS = Path(__file__).parent.parent / "scripts" / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.fixture
def benchmark():
    import benchmark

    return benchmark


def written(benchmark, tmp_path, part: str, **sizes):
    """The result of one part at these sizes, as it is in the file."""
    out = tmp_path / "new" / "bench.json"
    benchmark.benchmark(benchmark.Sizes(repeats=2, seconds=0.0, **sizes), (part,), out)
    result = json.loads(out.read_text())
    assert result["machine"]["usable_cores"] >= 1 and result["versions"]["jax"]
    return result[part]


def test_environments_do_the_same_work(benchmark, tmp_path):
    rows = written(benchmark, tmp_path, "environment", num_envs=(2,), steps=3)
    assert [row["env"] for row in rows] == ["ant", "half_cheetah"]
    for row in rows:
        assert row["final_state_difference"]["raw_c"] == row["final_state_difference"]["gymnasium_sync"] == 0
        assert row["ours_over_raw_c"]["repeats"] == 2 and row["ours"]["unit"] == "env steps/s"
        assert row["ours"]["min"] <= row["ours"]["median"] <= row["ours"]["max"]


def test_learner(benchmark, tmp_path):
    (row,) = written(benchmark, tmp_path, "learner", widths=(128,), updates=2)["metra"]
    assert row["finite"] and row["update"]["median"] > 0 and row["gemm"]["median"] > 0
    # XLA counts a scan's body once, and elementwise work besides.
    assert 1 < row["flops"]["xla"] / row["flops"]["formula"] < 1.1


@pytest.mark.slow
def test_offline_agents(benchmark, tmp_path, monkeypatch):
    """FB, and of FRE's phases one; the others are compiled in the same way, for ten times as long."""
    import benchmark_offline

    assert [preset(agent, name) for agent, name, _ in benchmark_offline.AGENTS.values()]
    few = {name: benchmark_offline.AGENTS[name] for name in ("fb", "fre, encoder")}
    monkeypatch.setattr(benchmark_offline, "AGENTS", few)
    sizes = {"widths": (32,), "offline_updates": 2, "offline_batch": 16}
    rows = written(benchmark, tmp_path, "offline", **sizes)
    assert [row["agent"] for row in rows] == list(few)
    for row in rows:
        assert row["finite"] and row["update"]["median"] > 0 and row["flops"]["value"] > 1e5
        assert row["batch"] == 16 and row["gemm"]["repeats"] == 2 and row["memory"]["value"] > 0.1


@pytest.mark.slow  # It compiles without the cache, which is what it measures.
def test_device(benchmark, tmp_path):
    (row,) = written(benchmark, tmp_path, "device", device_envs=("point",), seeds=2)
    assert row["num_envs"] == 64 and row["first_epoch_s"].keys() == {"one", "together"}
    assert row["together"]["median"] > 0 and row["sequential_over_together"]["repeats"] == 2


@pytest.mark.slow  # The same.
def test_adversarial_surprise(benchmark, tmp_path):
    assert all(preset("adversarial_surprise", name) for name in benchmark.Sizes().surprise_presets)
    (row,) = written(benchmark, tmp_path, "surprise", surprise_presets=("block-quick",), surprise_seeds=2)
    assert (row["env"], row["num_envs"], row["epoch_steps"]) == ("block:line18", 16, 16 * 128)
    assert row["first_epoch_s"].keys() == {"one", "together"} and row["sequential_over_together"]["repeats"] == 2
    assert min(row[name]["median"] for name in ("one", "together")) > 0


@pytest.mark.slow  # Nine programs are compiled.
def test_seeds_on_a_dataset(benchmark, tmp_path):
    rows = written(benchmark, tmp_path, "seeds", seeds=2, offline_updates=1)
    assert [row["agent"] for row in rows] == ["fb", "fre, encoder", "fre, policy"]
    for row in rows:
        assert row["seeds"] == 2 and row["batch"] == 256 and row["sequential_over_together"]["repeats"] == 2
        assert min(row[name]["median"] for name in ("host", "one", "together")) > 0


def test_data(benchmark, tmp_path):
    result = written(benchmark, tmp_path, "data", transitions=3_000, rows=2_000)
    sampling = result["sampling"]
    assert sampling["rate"]["median"] > 0 and sampling["bytes"] > 3_000 * 4 * 30
    assert len(result["relabelling"]) == 8 and all(row["rate"]["repeats"] == 2 for row in result["relabelling"])


def test_start(benchmark, tmp_path):
    rows = written(benchmark, tmp_path, "start")
    assert [row["what"] for row in rows] == ["import urlrl", "import urlrl.skills.policy"]
    for row in rows:
        assert row["time"]["repeats"] == row["processor"]["repeats"] == 2
        assert row["time"]["median"] > 0 and row["processor"]["median"] > 0


@pytest.mark.slow  # In a process of its own, which makes an FB.
def test_bundles(benchmark, tmp_path):
    *both, prompt = written(benchmark, tmp_path, "bundle", bundle_width=16, bundle_rows=100)
    assert [row["what"] for row in both] == ["action, ant, 2 x 256", "action, FB, 16", "B of 100 rows"]
    for row in both:
        assert row["numpy"]["repeats"] == row["onnxruntime"]["repeats"] == 2 and row["numpy"]["unit"] == "us"
        assert row["numpy_over_onnxruntime"]["median"] > 0
    assert prompt["what"] == "z for a reward on 100 rows" and prompt["numpy"]["median"] > 0
    assert prompt["numpy_over_onnxruntime"] is None and "onnxruntime" not in prompt


def test_flops_are_24_hidden_layers_and_the_thin_ones():
    from benchmark_learner import update_flops

    hidden = [24 * 2 * 256 * width**2 for width in (512, 1024)]
    thin = np.array([update_flops(512), update_flops(1024)]) - hidden
    assert thin[0] > 0 and thin[1] == 2 * thin[0]  # All that is left grows with the width, not with its square.


def test_run(benchmark, tmp_path):
    (row,) = written(benchmark, tmp_path, "run", presets={"point-quick": 2_400})
    assert row["env_steps_per_s"]["median"] > 0 and row["updates_per_s"]["median"] > 0
    assert 0 < sum(share["median"] for share in row["shares"].values()) < 1.1
    assert row["peak_memory"]["value"] > 100 * 2**20


def test_a_failed_run_says_why():
    import benchmark_run

    from urlrl.errors import UserError

    with pytest.raises(UserError, match="exited with 2 and said: .*ant-quick"):
        benchmark_run.pretrain("ant-quik", 100)


def test_a_folder_is_no_file(benchmark, tmp_path):
    with pytest.raises(benchmark.UserError, match="a folder: expected the name of a file"):
        benchmark.benchmark(benchmark.QUICK, ("learner",), tmp_path)
