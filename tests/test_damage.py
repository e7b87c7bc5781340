"""Damage in run folders, checkpoints and datasets: it is named in one sentence, and nothing else is lost."""

import io
import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
import numpy as np
import pytest
from data_tools import QUIET, make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from run_tools import copy_of
from test_gap import EVALUATION

import urlrl
from urlrl import files
from urlrl.agents.fb import FBConfig
from urlrl.config import OfflineConfig
from urlrl.data.dataset import Dataset
from urlrl.data.shards import Shard, ShardFolder
from urlrl.envs import point
from urlrl.errors import UserError
from urlrl.learners.skills import SkillSpace
from urlrl.runs.load import load_checkpoint, saved_evaluation
from urlrl.runs.past import past, run_dataset
from urlrl.training import checkpoint
from urlrl.training.checkpoint import Checkpoints
from urlrl.training.log import MetricsLog, read_metrics
from urlrl.training.run import RunFolder
from urlrl.types import BatchSpec
from urlrl.verbs.data import convert
from urlrl.verbs.pretrain import pretrain_seeds

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture
def run(whole_run, tmp_path):
    return copy_of(whole_run, tmp_path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture
def data(dataset, tmp_path):
    return Path(shutil.copytree(dataset.folder, tmp_path / "data"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 0x40
    path.write_bytes(content)


# --- metrics.jsonl

BAD_ROWS = {
    "a byte that is not UTF-8": b'{"step": 120, "a": 1.\xff}',
    "half a row": b'{"step": 120, "a"',
    "a list": b"[1, 2]",
    "null": b"null",
    "no step": b'{"a": 1.0}',
    "a step that is a fraction": b'{"step": 120.5, "a": 1.0}',
    "a text as a number": b'{"step": 120, "a": "1.0"}',
    "NaN": b'{"step": 120, "a": NaN}',
    "deep nesting": DEEP,
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_of_metrics_is_named_and_the_other_rows_are_kept(tmp_path, caplog, kind):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "a": 1.0}).encode() for step in (40, 80, 120, 160, 200)]
    good = [json.loads(line) for line in lines if b"120" not in line]
    lines[2] = BAD_ROWS[kind]
    path.write_bytes(before := b"\n".join(lines) + b"\n")
    assert read_metrics(path) == good and f"{path} is damaged in line 3 (" in caplog.text
    for _ in range(2):  # The file is whole after the first opening: nothing is put aside a second time.
        MetricsLog(tmp_path, 160).close()
        assert read_metrics(path) == good[:3]
    aside = list(tmp_path.glob("metrics.damaged*"))
    assert [file.read_bytes() for file in aside] == [before] and str(aside[0]) in caplog.text


@pytest.mark.parametrize("rest", [b"", b'{"step": 120, "a'])
def test_a_last_row_that_a_kill_cut_short_is_left_out_without_a_word(tmp_path, caplog, rest):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 40, "a": 1.0}\n{"step": 80, "a": 1.0}\n' + rest)
    assert [row["step"] for row in read_metrics(path, until=80)] == [40, 80]
    MetricsLog(tmp_path, 80).close()
    assert not caplog.text and not list(tmp_path.glob("metrics.damaged*"))


def test_metrics_that_end_before_their_checkpoint_are_named(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 40, "a": 1.0}\n')
    MetricsLog(tmp_path, 80).close()
    assert f"{path} ends at step 40: expected rows up to step 80" in caplog.text


# --- config.json


def edited(**changes):
    return lambda manifest: manifest | changes


def without(name):
    return lambda manifest: {key: value for key, value in manifest.items() if key != name}


def config_edited(**changes):
    return lambda manifest: manifest | {"config": manifest["config"] | changes}


BAD_CONFIGS = {
    "no config": (without("config"), "config is missing"),
    "config as a list": (edited(config=[]), r"config is \[\], not an object"),
    "no agent": (config_edited(agent=None), "config.agent is None, not an object"),
    "agent_name as a number": (config_edited(agent_name=3), "config.agent_name is 3, not a text"),
    "no agent_name": (
        lambda found: found | {"config": without("agent_name")(found["config"])},
        "config.agent_name is missing",
    ),
    "no continued": (without("continued"), "continued is missing"),
    "continued from nowhere": (edited(continued=[{}]), "continued.0.from_step is missing"),
    "command as a list": (edited(command=[]), r"command is \[\], not a text"),
    "versions as a text": (edited(versions="1.0"), "versions is '1.0', not an object"),
    "a version as a number": (edited(versions={"jax": 1}), "versions.jax is 1, not a text"),
    "steps as NaN": (config_edited(steps=float("nan")), "the number NaN, which is not finite"),
    "steps beyond 64 bits": (config_edited(steps=10**30), "beyond 64 bits"),
    "an agent of other types": (config_edited(agent={"width": "x"}), "config.agent.width is 'x'"),
    "a batch as a number": (config_edited(agent={"batch": 3}), "config.agent.batch is 3"),
    "steps_per_update near zero": (config_edited(steps_per_update=5e-324), "steps_per_update is 5e-324"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_CONFIGS)
def test_a_damaged_config_is_one_sentence(run, kind):
    change, words = BAD_CONFIGS[kind]
    path = run / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=f"config.json.*{words}"):
        load_checkpoint(run)


# --- nesting, in every JSON file


@pytest.mark.parametrize("name", ["config.json", "evaluation.json", "checkpoints/320/manifest.json"])
def test_deep_nesting_in_a_run_is_named(run, caplog, name):
    (run / name).write_bytes(DEEP)
    if name == "config.json":
        with pytest.raises(UserError, match="config.json cannot be read: it is nested more than 50 deep"):
            load_checkpoint(run)
        return
    loaded = load_checkpoint(run)
    assert saved_evaluation(run, 320, loaded.spec) is None
    assert str(run / name) in caplog.text + loaded.note


def test_deep_nesting_in_a_dataset_is_named(data):
    (data / "dataset.json").write_bytes(DEEP)
    with pytest.raises(UserError, match="dataset.json cannot be read: it is nested more than 50 deep"):
        Dataset(data)


# --- checkpoints

DAMAGE = {
    "a manifest that is an empty list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "a manifest that lists nothing": lambda folder: (folder / "manifest.json").write_text("{}"),
    "a manifest that lists nothing, and no agent": lambda folder: (
        (folder / "manifest.json").write_text("{}"),
        shutil.rmtree(folder / "agent"),
    ),
    "no agent": lambda folder: shutil.rmtree(folder / "agent"),
    "a file that is not in the manifest": lambda folder: (folder / "agent" / "more").write_text(""),
    "an info of another step": lambda folder: (
        (folder / "info.json").write_text('{"step": 3, "shards": []}'),
        write_manifest(folder),
    ),
    "an info that is a list": lambda folder: ((folder / "info.json").write_text("[]"), write_manifest(folder)),
    "nothing": shutil.rmtree,
}


def write_manifest(folder: Path) -> None:
    """Make it list the files as they are."""
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(checkpoint._hashes(folder)))


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_older_checkpoint_is_used_where_the_newest_is_damaged(run, kind):
    folder = run / "checkpoints" / "320"
    DAMAGE[kind](folder)
    loaded = load_checkpoint(run)
    assert loaded.step == 280
    assert kind == "nothing" or str(folder) in loaded.note


def test_a_checkpoint_that_goes_away_while_it_is_read_is_passed_over(run, monkeypatch):
    """As a run in progress replaces its checkpoints."""
    restore = checkpoint._restore_part

    def delete_and_restore(folder, like):
        monkeypatch.setattr(checkpoint, "_restore_part", restore)
        for step in (280, 320):
            (run / "checkpoints" / str(step)).rename(run / "checkpoints" / f".deleting-{step}")
        shutil.copytree(run / "checkpoints" / ".deleting-280", run / "checkpoints" / "280")
        return restore(folder, like)

    monkeypatch.setattr(checkpoint, "_restore_part", delete_and_restore)
    loaded = load_checkpoint(run)
    assert loaded.step == 280 and not loaded.note


def test_only_plain_numbers_are_steps(run):
    for name in ("²", "007", "9" * 30):
        (run / "checkpoints" / name).mkdir()
    (run / "checkpoints" / "360").touch()
    assert Checkpoints(run / "checkpoints").steps() == [280, 320]


def test_a_checkpoint_whose_info_is_damaged_is_not_deleted_as_one_that_is_no_snapshot(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, {"part": {"x": np.zeros(2)}}, {"step": step})
        if step == 1:
            (tmp_path / "1" / "info.json").write_text("{")
    assert checkpoints.steps() == [1, 3, 4]


# --- evaluation.json

BAD_EVALUATIONS = {
    "only a step": {"step": 320},
    "coverage as a text": {**EVALUATION, "coverage": "77"},
    "goals without a score": {**EVALUATION, "goals": {**EVALUATION["goals"], "agent": {}}},
    "a twin without coverage": {**EVALUATION, "twin": {**EVALUATION["twin"], "coverage": None}},
    "a list": [],
}


@pytest.mark.parametrize("kind", BAD_EVALUATIONS)
def test_a_damaged_evaluation_is_named_and_not_used(run, caplog, kind):
    (run / "evaluation.json").write_text(json.dumps(BAD_EVALUATIONS[kind]))
    assert saved_evaluation(run, 320, load_checkpoint(run).spec) is None
    assert str(run / "evaluation.json") in caplog.text and "It is not used." in caplog.text


# --- shards and datasets


@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["flipped", "missing"])
def test_prompts_name_a_damaged_shard(run, damage):
    loaded = load_checkpoint(run)
    assert len(past(run, loaded, 1000, 0)["obs"]) == 320
    shard = sorted((run / "replay").iterdir())[1]
    damage(shard)
    with pytest.raises(UserError, match=f"Shard {shard}"):
        past(run, loaded, 1000, 0)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_a_shard_of_eight_bit_floats_is_named(tmp_path, dtype):
    header = json.dumps({"obs": {"dtype": dtype, "shape": [2, 1], "data_offsets": [0, 2]}}).encode()
    shard = Shard("000000000000-000000000002.safetensors", 0, 2, "")
    (tmp_path / shard.file).write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(UserError, match=shard.file):
        ShardFolder(tmp_path, {"obs": ((1,), np.dtype(np.float32))}, 1).read(shard)


def test_a_column_that_is_an_npz_is_named(data):
    np.savez(archive := io.BytesIO(), obs=np.zeros(3))
    (data / "obs.npy").write_bytes(archive.getvalue())
    with pytest.raises(UserError, match=r"obs.npy cannot be read"):
        Dataset(data)


def test_a_flipped_bit_of_a_dataset_is_named_before_anything_learns_from_it(data, tmp_path):
    agent = FBConfig(z=SkillSpace("wide_sphere", 4), width=16, batch=BatchSpec(size=8))
    config = OfflineConfig(agent=agent, data=str(data), data_id=Dataset(data).id, updates=5, steps=5)
    run_dataset(config)
    flip(data / "obs.npy")
    words = "obs.npy is not the file that was written: its SHA-256 is not the one in dataset.json"
    with pytest.raises(UserError, match=words):
        run_dataset(config)  # As prompts, adaptation and suites open it.
    with pytest.raises(UserError, match=words):
        urlrl.pretrain(config, tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match=words):
        pretrain_seeds(config, [0], tmp_path / "runs", quiet=True)
    with pytest.raises(UserError, match=words):
        convert(data, tmp_path / "again", quiet=True)


def test_a_large_file_is_hashed_again_only_where_it_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "REMEMBERED_BYTES", 0)
    monkeypatch.setattr(files, "SETTLED_NS", -1)
    path, memory, hashed = tmp_path / "x", tmp_path / "cache" / "hashes.json", []
    path.write_bytes(b"one")

    def counting(file, digest=files.sha256):
        hashed.append(file)
        return digest(file)

    monkeypatch.setattr(files, "sha256", counting)
    first = files.remembered_sha256(path, memory)
    assert files.remembered_sha256(path, memory) == first and len(hashed) == 1
    (tmp_path / "y").write_bytes(b"two")
    os.utime(tmp_path / "y", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    (tmp_path / "y").rename(path)  # Of the same size and the same time of change.
    assert files.remembered_sha256(path, memory) != first and len(hashed) == 2
    memory.write_text("[]")
    monkeypatch.setattr(files, "SETTLED_NS", 10**18)  # Just written: it could change again unnoticed.
    for _ in range(2):
        files.remembered_sha256(path, memory)
    assert len(hashed) == 4


# --- any damage to any file

TEXT = ("config.json", "evaluation.json", "metrics.jsonl", "dataset.json")  # Files that nothing else has a hash of.
KINDS = ("flip", "cut", "insert", "replace", "delete")
WHOLE = (b"", b"[]", b"{}", b"null", b"0", DEEP)


@st.composite
def changes(draw, kinds=KINDS):
    """(bytes, whether the file is TEXT) -> its damaged bytes, or None where it is deleted. In a text file a digit that
    becomes another digit is no damage that can be known: there, bytes become ones that are never in such a file."""
    kind = draw(st.sampled_from(kinds))
    where, byte, bit = draw(st.floats(0, 1)), draw(st.integers(0, 255)), draw(st.integers(0, 7))
    whole = draw(st.sampled_from(WHOLE))

    def change(content: bytes, text: bool) -> bytes | None:
        at = min(int(where * len(content)), max(len(content) - 1, 0))
        if kind == "flip" and content:
            flipped = content[at] ^ (0x80 if text else 1 << bit)
            return content[:at] + bytes([flipped]) + content[at + 1 :]
        if kind == "cut":
            return content[:at]
        if kind == "insert":
            return content[:at] + bytes([byte | 0x80 if text else byte]) + content[at:]
        return None if kind == "delete" else whole

    return change


@contextmanager
def damaged(path: Path, change):
    before = path.read_bytes()
    after = change(before, path.name in TEXT)
    path.unlink() if after is None else path.write_bytes(after)
    try:
        yield
    finally:
        path.write_bytes(before)


def same(a, b) -> bool:
    (leaves, structure), (others, other) = (jax.tree.flatten(tree) for tree in (a, b))
    return structure == other and all(np.array_equal(x, y) for x, y in zip(leaves, others))


def check_named(reader, folder: Path, whole, path: Path, caplog) -> None:
    """The reader gives what it gave before the damage, or it names the file (or the file's checkpoint)."""
    caplog.clear()
    try:
        if same(reader(folder), whole):
            return
        said = caplog.text
    except UserError as error:
        said = str(error)
    place = path.relative_to(folder).parts
    assert (str(folder / place[0] / place[1]) if place[0] == "checkpoints" else path.name) in said


def load(run: Path):
    """What prompts start from. An older checkpoint that is used instead, in words, is the one that was written."""
    loaded = load_checkpoint(run)
    found = loaded.agent, past(run, loaded, 50, 0)
    if loaded.note:
        assert same(found, OLDER[run])
        raise UserError(loaded.note)
    return found


OLDER = {}  # run -> `load` of its checkpoint of step 280
READERS = {
    "load": load,
    "manifest": lambda run: RunFolder(run).manifest(),
    "metrics": lambda run: read_metrics(run / "metrics.jsonl", until=320),
    "evaluation": lambda run: (
        saved_evaluation(run, 320, point.SPEC) if (run / "evaluation.json").exists() else EVALUATION
    ),
}


@pytest.fixture(scope="module")
def readable(whole_run, tmp_path_factory):
    """(run, what each reader gives)"""
    run = Path(shutil.copytree(whole_run, tmp_path_factory.mktemp("readable") / "run"))
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
    older = load_checkpoint(run, 280)
    OLDER[run] = older.agent, past(run, older, 50, 0)
    return run, {name: reader(run) for name, reader in READERS.items()}


@settings(QUIET, max_examples=80)
@given(data=st.data())
def test_any_damage_to_a_file_of_a_run_is_named(readable, caplog, data):
    run, whole = readable
    groups = [[run / name for name in TEXT[:3]], sorted((run / "replay").iterdir())]
    groups += [files_of(run / "checkpoints" / step) for step in ("280", "320")]
    path = data.draw(st.sampled_from(groups).flatmap(st.sampled_from))
    kinds = KINDS[:-1] if path.name == "evaluation.json" else KINDS  # Without it, nobody has evaluated the run.
    with damaged(path, data.draw(changes(kinds))):
        for name, reader in READERS.items():
            check_named(reader, run, whole[name], path, caplog)


@settings(QUIET, max_examples=30)
@given(data=st.data())
def test_damage_that_a_manifest_accepts_is_no_traceback(readable, data):
    run, _ = readable
    folder = run / "checkpoints" / "320"
    manifest = (folder / "manifest.json").read_bytes()
    path = data.draw(st.sampled_from([file for file in files_of(folder) if file.name != "manifest.json"]))
    try:
        with damaged(path, data.draw(changes())), suppress(UserError):
            write_manifest(folder)
            load_checkpoint(run, 320)
    finally:
        (folder / "manifest.json").write_bytes(manifest)


@settings(QUIET, max_examples=100)
@given(data=st.data())
def test_any_damage_to_a_file_of_a_dataset_is_named(dataset, caplog, data):
    def read(folder):
        found = Dataset(folder).verify()
        return found.info, found.columns, found.starts

    whole = dataset.info, {name: np.array(column) for name, column in dataset.columns.items()}, dataset.starts
    path = data.draw(st.sampled_from(files_of(dataset.folder)))
    with damaged(path, data.draw(changes())):
        check_named(read, dataset.folder, whole, path, caplog)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
