"""Files that are damaged, or made to harm: no other file is read, no more memory is taken than a file may claim, and
what cannot be read is one short sentence."""

import io
import json
import os
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_tools import (
    QUIET,
    assert_same_episodes,
    compact,
    d4rl_arrays,
    make_dataset,
    make_episodes,
    make_lerobot,
    save_d4rl,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from urlrl.data import claims
from urlrl.data.dataset import Dataset, Episode
from urlrl.data.demo import checked_demo, read_demo
from urlrl.data.shards import Shard, ShardFolder
from urlrl.errors import UserError
from urlrl.files import sha256
from urlrl.verbs.data import convert, export_data, open_source

h5py = pytest.importorskip("h5py")

KINDS = ("exorl", "ogbench", "d4rl", "minari", "lerobot", "urlrl")
SECRET = np.frombuffer(b"a key that nobody else may read." * 2, np.uint8)


def episodes_of(path: Path) -> list[Episode]:
    return list(open_source(path, env="").episodes)


def refusal(read: Callable, path: Path) -> str:
    """The sentence by which reading is refused: on one line, short, and with the file's name."""
    with pytest.raises(UserError) as raised:
        read()
    said = str(raised.value)
    assert str(path) in said and said.isprintable() and len(said) < 800 + len(str(path))
    return said


def files_of(source: Path) -> list[Path]:
    return sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]


def make_source(kind: str, folder: Path) -> Path:
    """A small source of two episodes of four transitions."""
    data = make_dataset(folder / "set", lengths=(4, 4))
    if kind == "urlrl":
        return data.folder
    if kind == "lerobot":
        return make_lerobot(folder / "out", lengths=(4, 4))
    if kind in ("exorl", "minari"):
        return export_data(data.folder, folder / "out", kind, quiet=True)
    if kind == "ogbench":
        states = data.columns["physics"]
        np.savez_compressed(folder / "a.npz", **compact(list(data.episodes()), qpos=states[:, :2], qvel=states[:, 2:]))
        return folder / "a.npz"
    return save_d4rl(folder / "a.hdf5", d4rl_arrays(list(data.episodes())))


def hdf5_of(source: Path) -> Path:
    return source / "data" / "main_data.hdf5" if source.is_dir() else source


# --- HDF5: no other file is read --------------------------------------------------------------------------------------


def stored_elsewhere(group, key: str, secret: Path) -> None:
    shape = group[key].shape
    del group[key]
    group.create_dataset(key, shape=shape, dtype="u1", external=[(str(secret), 0, 64)])


def linked(group, key: str, secret: Path) -> None:
    del group[key]
    group[key] = h5py.ExternalLink(str(secret), "/numbers")


def linked_in_two_steps(group, key: str, secret: Path) -> None:
    del group[key]
    if "step" not in group.file.keys():  # noqa: SIM118 - `in` alone opens the other file.
        group.file["step"] = h5py.ExternalLink(str(secret), "/numbers")
    group[key] = h5py.SoftLink("/step")


def put_together(group, key: str, secret: Path) -> None:
    shape = group[key].shape
    layout = h5py.VirtualLayout(shape, "u1")
    layout[:] = h5py.VirtualSource(str(secret), "/numbers", shape=shape)
    del group[key]
    group.create_virtual_dataset(key, layout)


ELSEWHERE = {
    "external storage": (stored_elsewhere, "is stored in '{secret}'"),
    "an external link": (linked, "is a link to '/numbers' of '{secret}'"),
    "a soft link to an external link": (linked_in_two_steps, "is a link to '/step'"),
    "a virtual dataset": (put_together, "is put together of '{secret}'"),
}
# A key of a file, and the shape of its arrays there.
PLACES = [("d4rl", "rewards"), ("d4rl", "infos/qpos"), ("minari", "episode_0/rewards"), ("minari", "episode_1/actions")]


def write_secret(path: Path, shape: tuple[int, ...]) -> Path:
    with h5py.File(path, "w") as file:
        file["numbers"] = np.resize(SECRET, shape)
    return path


@pytest.mark.parametrize("way", ELSEWHERE)
@pytest.mark.parametrize(("kind", "key"), PLACES)
def test_numbers_of_another_file_are_not_read(tmp_path, kind, key, way):
    source = make_source(kind, tmp_path)
    change, said = ELSEWHERE[way]
    secret = tmp_path / "secret"
    with h5py.File(hdf5_of(source), "a") as file:
        if "infos" in key:
            file["infos/qpos"] = np.zeros((8, 2))
        write_secret(secret, file[key].shape)
        change(file, key, secret)
    sentence = refusal(lambda: convert(source, tmp_path / "new", env="", quiet=True), source)
    assert key.removeprefix("episode_0/").removeprefix("episode_1/") in sentence
    assert said.format(secret=secret) in sentence and "expected the numbers themselves, in this file" in sentence
    assert not list(tmp_path.glob("*new*"))


@pytest.mark.parametrize(("kind", "key"), [("d4rl", "infos"), ("minari", "episode_0"), ("minari", "episode_1")])
def test_groups_of_another_file_are_not_read(tmp_path, kind, key):
    source = make_source(kind, tmp_path)
    path = hdf5_of(source)
    shutil.copy(path, tmp_path / "secret")
    with h5py.File(path, "a") as file:
        if key in file:
            del file[key]
        file[key] = h5py.ExternalLink(str(tmp_path / "secret"), f"/{key}")
    said = refusal(lambda: convert(source, tmp_path / "new", env="", quiet=True), source)
    assert f"'{tmp_path / 'secret'}'" in said and not list(tmp_path.glob("*new*"))


def test_observations_that_are_a_linked_group_are_not_read(tmp_path):
    source = make_source("minari", tmp_path)
    metadata = json.loads((source / "data" / "metadata.json").read_text())
    space = {"type": "Dict", "subspaces": {"observation": json.loads(metadata["observation_space"])}}
    metadata["observation_space"] = json.dumps(space)
    (source / "data" / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(tmp_path / "secret", "w") as file:
        file["numbers/observation"] = np.zeros((5, 3))
    with h5py.File(hdf5_of(source), "a") as file:
        linked(file["episode_0"], "observations", tmp_path / "secret")
    said = refusal(lambda: convert(source, tmp_path / "new", env="", quiet=True), source)
    assert "'observations/observation' is a link" in said and not list(tmp_path.glob("*new*"))


def test_a_link_is_refused_before_its_file_is_opened(tmp_path):
    source = make_source("d4rl", tmp_path)
    os.mkfifo(tmp_path / "pipe")  # Whoever opens it waits.
    with h5py.File(source, "a") as file:
        linked(file, "rewards", tmp_path / "pipe")
    assert "is a link to" in refusal(lambda: episodes_of(source), source)


# --- Memory in proportion to the file ---------------------------------------------------------------------------------

MIB = 2**20


@pytest.fixture(scope="module")
def traced():
    """Python's and NumPy's memory is counted."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def peak(read: Callable) -> int:
    """Bytes that reading takes at most."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    read()
    return tracemalloc.get_traced_memory()[1] - before


def assert_refused_early(source: Path, said: str, most: int = 16 * MIB) -> None:
    sentences: list[str] = []
    assert peak(lambda: sentences.append(refusal(lambda: episodes_of(source), source))) < most
    assert said in sentences[0], sentences[0]


ZEROS = np.zeros((4_200_000, 4), np.float32)  # 64.1 MiB, 65 KB when they are compressed


def test_an_exorl_episode_that_is_larger_than_its_file_may_claim_is_refused(tmp_path, traced):
    rows = len(ZEROS)
    arrays = {"observation": ZEROS, "action": np.zeros((rows, 1), bool), "reward": np.zeros(rows, bool)}
    np.savez_compressed(tmp_path / f"episode_0_{rows - 1}.npz", **arrays, discount=np.ones(rows, bool))
    size = (tmp_path / f"episode_0_{rows - 1}.npz").stat().st_size
    assert_refused_early(tmp_path, f"would take {19 * rows:,} bytes of memory at once, and the file has {size:,}")


def test_an_ogbench_trajectory_that_is_larger_than_its_file_may_claim_is_refused(tmp_path, traced):
    rows = len(ZEROS)
    flags = {"actions": np.zeros((rows, 1), bool), "terminals": np.zeros(rows, bool)}
    np.savez_compressed(tmp_path / "a.npz", observations=ZEROS, **flags)
    assert_refused_early(tmp_path / "a.npz", f"a trajectory of {rows:,} rows would take {17 * rows:,} bytes")


def test_ogbench_terminals_that_are_more_than_the_file_may_claim_are_refused(tmp_path, traced):
    np.savez_compressed(tmp_path / "a.npz", **compact(make_episodes()) | {"terminals": np.zeros(9_000_000, bool)})
    assert_refused_early(tmp_path / "a.npz", "'terminals' would take 72,000,000 bytes")


def test_columns_that_compress_a_thousand_times_are_read_in_blocks(tmp_path, traced):
    """Each of these arrays alone is refused where it would be loaded as a whole."""
    ends = np.arange(1, len(ZEROS) + 1) % 42_000 == 0
    np.savez_compressed(tmp_path / "a.npz", observations=ZEROS, actions=np.zeros((len(ZEROS), 1), bool), terminals=ends)
    lengths: list[int] = []
    read = lambda: lengths.extend(len(episode.action) for episode in open_source(tmp_path / "a.npz").episodes)  # noqa: E731
    assert peak(read) < 32 * MIB and lengths == [41_999] * 100


def never_written(file, key: str, rows: int, width: int | None = None, **options) -> None:
    """Rows that take no room in the file."""
    if key in file:
        del file[key]
    shape = (rows,) if width is None else (rows, width)
    file.create_dataset(key, shape, "f4", **{"chunks": True} | options)


def inflated(file) -> None:
    """A chunk of gzip that says it holds 80 bytes, and holds 80 MB."""
    never_written(file, "rewards", 8, chunks=(10,), maxshape=(None,), compression="gzip")
    file["rewards"].id.write_direct_chunk((0,), zlib.compress(bytes(80_000_000)))


BAD_HDF5 = {
    "terminals of 2 * 10^9 rows": (
        lambda file: [never_written(file, key, 2 * 10**9, 1) for key in ("terminals", "observations", "actions")] +
        [file.__delitem__(key) for key in ("rewards", "timeouts")] +
        [never_written(file, "next_observations", 2 * 10**9, 1)],
        "'terminals' would take 16,000,000,000 bytes"),
    "rows of 10^9 numbers": (
        lambda file: [never_written(file, key, 8, 10**9) for key in ("observations", "next_observations")],
        "would take"),
    "a chunk of 10^9 numbers": (
        lambda file: never_written(file, "rewards", 8, chunks=(10**9,), maxshape=(None,)),
        "'rewards' would take 4,000,000,000 bytes"),
    "a chunk that holds more than it says": (inflated, "holds more than the 40 that it is said to hold"),
    "another filter": (
        lambda file: never_written(file, "rewards", 8, scaleoffset=2), "has filters [6], not each of gzip, shuffle"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_HDF5)
def test_d4rl_that_claims_more_than_its_file_may_is_refused(tmp_path, traced, what):
    source = make_source("d4rl", tmp_path)
    change, said = BAD_HDF5[what]
    with h5py.File(source, "a") as file:
        change(file)
    assert_refused_early(source, said)


def test_minari_that_claims_more_than_its_file_may_is_refused(tmp_path, traced):
    source = make_source("minari", tmp_path)
    with h5py.File(hdf5_of(source), "a") as file:
        never_written(file["episode_0"], "observations", 10**9, 3)
    assert_refused_early(source, "episode_0 would take 12,000,")


def npy_header(shape: str, dtype: str = "<f4") -> bytes:
    """The beginning of an .npy file, whatever it says."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def npz_content(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, array)
    return buffer.getvalue()


BAD_NPY = {
    "an npz file": (npz_content(np.zeros((25, 3), np.float32)), "cannot be read: the magic string is not correct"),
    "10^15 rows": (npy_header("(10**15, 3)".replace("10**15", str(10**15))) + bytes(24),
                   "its header claims 12,000,000,000,000,000 bytes of numbers, and the file has 24"),
    "5 * 10^9 rows": (npy_header("(5000000000, 3)") + bytes(24), "claims 60,000,000,000 bytes of numbers"),
    "negative rows": (npy_header("(-1, 3)") + bytes(24), "its shape is (-1, 3)"),
    "a header of 9,000 characters": (npy_header("(" + "1, " * 3000 + ")") + bytes(24), "its shape is (1, 1, 1"),
    "a type of 9,000 characters": (npy_header("(1, 3)", "f4" * 4500) + bytes(24), "cannot be read: "),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_NPY)
def test_a_bad_npy_file_is_one_sentence(tmp_path, traced, what):
    content, said = BAD_NPY[what]
    path = make_dataset(tmp_path / "set").folder / "obs.npy"
    path.write_bytes(content)
    sentences: list[str] = []
    for read in (lambda: Dataset(path.parent), lambda: read_demo(path)):
        assert peak(lambda read=read: sentences.append(refusal(read, path))) < 8 * MIB
    assert all(said in one for one in sentences), sentences


def test_an_npz_header_that_claims_more_than_is_stored_is_refused(tmp_path, traced):
    path = make_source("ogbench", tmp_path)
    rewrite_npz(path, "observations", npy_header("(5000000000, 3)") + bytes(24))
    assert_refused_early(path, "its header claims 60,000,000,000 bytes of numbers, and 24 are there", MIB)
    rewrite_npz(path, "observations", b"\x93NUMPY\x02\x00" + struct.pack("<I", 100_000_000) + bytes(100_000_000))
    assert_refused_early(path, "'observations' cannot be read", MIB)


def rewrite_npz(path: Path, key: str, content: bytes) -> None:
    """Put other bytes in the place of an array."""
    with zipfile.ZipFile(path) as archive:
        stored = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, old in stored.items():
            archive.writestr(name, content if name == f"{key}.npy" else old)


# --- Types of numbers, JSON, widths -----------------------------------------------------------------------------------


def safetensors_of(dtype: str, shape=(4, 2), name="obs") -> bytes:
    """One tensor of a type of one byte per number."""
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, int(np.prod(shape))]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(int(np.prod(shape)))


@pytest.mark.parametrize("dtype", ["F8_E5M2", "F8_E4M3"])
def test_float8_is_named(tmp_path, dtype):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_of(dtype))
    assert f"holds {dtype}: expected one of F64, F32" in refusal(lambda: read_demo(path), path)
    folder = ShardFolder(tmp_path, {"obs": ((2,), np.dtype(np.float32))}, 1)
    said = refusal(lambda: folder.read(Shard(path.name, 0, 4, "")), path)
    assert f"holds numbers of type '{dtype}'" in said


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("kind", "file", "said"),
    [
        ("urlrl", "dataset.json", "nested more than 50 deep"),
        ("minari", "data/metadata.json", "maximum recursion depth"),
        ("minari", "action_space", "maximum recursion depth"),
    ],
)
def test_json_that_is_nested_too_deeply_is_one_sentence(tmp_path, kind, file, said):
    source = make_source(kind, tmp_path)
    path = source / (file if file.endswith(".json") else "data/metadata.json")
    space = json.loads(path.read_text()) | {"action_space": DEEP}
    path.write_text(DEEP if file.endswith(".json") else json.dumps(space))
    assert said in refusal(lambda: episodes_of(source), path)


@pytest.mark.parametrize(("kind", "key"), [("ogbench", "observations"), ("ogbench", "actions"),
                                           ("exorl", "observation"), ("exorl", "action")])  # fmt: skip
def test_rows_without_numbers_are_refused(tmp_path, kind, key):
    source = make_source(kind, tmp_path)
    path = files_of(source)[0]
    buffer = io.BytesIO()
    np.save(buffer, np.load(path)[key][:, :0])
    rewrite_npz(path, key, buffer.getvalue())
    assert f"'{key}' has no numbers in its rows" in refusal(lambda: episodes_of(source), path)


def set_bounds(source: Path, low: float, high: float) -> None:
    path = source / "data" / "metadata.json"
    space = {"type": "Box", "dtype": "float32", "shape": [2], "low": [low] * 2, "high": [high] * 2}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"action_space": json.dumps(space)}))


@pytest.mark.parametrize(("low", "high"), [(np.nan, 1.0), (-1.0, np.nan), (np.nan, np.nan), (1.0, -1.0)])
def test_minari_bounds_that_are_no_bounds_are_refused(tmp_path, low, high):
    source = make_source("minari", tmp_path)
    set_bounds(source, low, high)
    assert "expected low below high" in refusal(lambda: episodes_of(source), source)


@pytest.mark.parametrize("bound", [np.inf, 1.0])
def test_minari_without_bounds_keeps_its_actions(tmp_path, bound):
    source = make_source("minari", tmp_path)
    set_bounds(source, -bound, bound)
    assert_same_episodes(episodes_of(source), make_episodes((4, 4)))


def test_a_dataset_with_numbers_that_are_not_finite_is_not_a_source(tmp_path):
    data = make_dataset(tmp_path / "set")
    obs = np.load(data.folder / "obs.npy")
    obs[7, 1] = np.nan
    np.save(data.folder / "obs.npy", obs)
    about = json.loads((data.folder / "dataset.json").read_text())
    about["sha256"]["obs"] = sha256(data.folder / "obs.npy")  # It was written so.
    (data.folder / "dataset.json").write_text(json.dumps(about))
    assert "'obs' has nan in row 7" in refusal(lambda: episodes_of(data.folder), data.folder)


@pytest.mark.parametrize("name", ["episodes", "rows", "obs_dim", "action_dim"])
def test_a_dataset_of_nothing_is_refused(tmp_path, name):
    path = make_dataset(tmp_path / "set").folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: 0}))
    assert f"'{name}' is 0, not a number of at least 1" in refusal(lambda: Dataset(path.parent), path)


# --- Any damage -------------------------------------------------------------------------------------------------------

SHARE = 2**19  # bytes that any file may claim here, so that a claim is noticed
PRISTINE: dict[str, Path] = {}


def pristine(kind: str, folders) -> Path:
    if kind not in PRISTINE:
        PRISTINE[kind] = make_source(kind, folders.mktemp(kind))
    return PRISTINE[kind]


def read_soundly(read: Callable[[], list[Episode]], monkeypatch) -> list[Episode] | None:
    """What is read: finite numbers in arrays that fit each other. None if it is refused. Either takes little memory."""
    found: list[list[Episode]] = []

    def attempt() -> None:
        try:
            found.append(read())
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 1000

    with monkeypatch.context() as patched:
        patched.setattr(claims, "FREE", SHARE)
        assert peak(attempt) < 8 * SHARE
    for episode in found[0] if found else []:
        steps, physics = len(episode.action), episode.physics
        assert steps and episode.obs.shape[0] == steps + 1 and episode.obs.shape[1] and episode.action.shape[1]
        assert episode.reward.shape == episode.terminated.shape == (steps,)
        assert all(np.isfinite(part).all() for part in episode[:4])
        assert physics is None or (physics.shape[0] == steps + 1 and np.isfinite(physics).all())
    return found[0] if found else None


@st.composite
def damages(draw) -> Callable[[bytes], bytes]:
    """What is done to the bytes of a file: bits flipped, parts cut out, put in, exchanged, or the end cut off."""
    way = draw(st.sampled_from(["flip", "flip", "cut", "insert", "swap", "end"]))
    a, b = draw(st.floats(0, 1)), draw(st.floats(0, 1))  # Places, as shares of the file: most of it is headers.
    few, put = draw(st.integers(1, 16)), draw(st.binary(min_size=1, max_size=16))

    def damage(content: bytes) -> bytes:
        i, j = int(a * (len(content) - 1)), int(b * (len(content) - 1))
        if way == "flip":
            return content[:i] + bytes([content[i] ^ 1 << few % 8]) + content[i + 1 :]
        if way == "cut":
            return content[:i] + content[i + few :]
        if way == "insert":
            return content[:i] + put + content[i:]
        if way == "swap":
            i, j = min(i, j), max(i, j)
            one, other = content[i : min(i + 8, j)], content[j : j + 8]
            return content[:i] + other + content[i + len(one) : j] + one + content[j + len(other) :]
        return content[:i]

    damage.__name__ = way
    return damage


@pytest.mark.parametrize("kind", KINDS)
@settings(QUIET, max_examples=30)
@given(data=st.data())
def test_damaged_bytes_are_at_most_a_sentence(kind, tmp_path_factory, monkeypatch, traced, data):
    source = pristine(kind, tmp_path_factory)
    path, damage = data.draw(st.sampled_from(files_of(source))), data.draw(damages())
    content = path.read_bytes()
    try:
        path.write_bytes(damage(content))
        found = read_soundly(lambda: episodes_of(source), monkeypatch)
    finally:
        path.write_bytes(content)
    if found is not None and kind in ("exorl", "ogbench"):
        # A checksum finds what is not in unused parts of the file.
        assert_same_episodes(found, episodes_of(source))


DEMO = make_episodes((6,))[0].obs


def demo_content(suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == "npy":
        np.save(buffer, DEMO)
    elif suffix == "csv":
        np.savetxt(buffer, DEMO, delimiter=",", header="x,y,z", comments="")
    else:
        buffer.write(save({"obs": DEMO}))
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "csv"])
@settings(QUIET, max_examples=30)
@given(damage=damages())
def test_damaged_demonstrations_are_at_most_a_sentence(suffix, tmp_path_factory, traced, damage):
    path = tmp_path_factory.getbasetemp() / f"demo.{suffix}"
    path.write_bytes(damage(demo_content(suffix)))

    def attempt() -> None:
        try:
            checked_demo(read_demo(path), str(path), 3)
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 1000

    assert peak(attempt) < MIB


SHAPES = [(), (0,), (8,), (8, 0), (8, 1), (8, 3), (9, 3), (10, 3), (8, 3, 1), (30_000,), (30_000, 3)]
DTYPES = ["?", "u1", "<i8", ">f4", "<f2", "<f8", "S3", "<c8"]


@st.composite
def arrays(draw) -> np.ndarray:
    """An array that may stand under any key."""
    shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES))
    value = draw(st.sampled_from([0, 1, np.nan, np.inf, -1e300, 0.5]))
    with np.errstate(all="ignore"):
        return np.full(shape, value, np.float64).astype(dtype)


def change_hdf5(group, key: str, way: str, values: np.ndarray, folder: Path) -> None:
    if way == "never written" and values.dtype.kind != "S" and values.ndim and all(values.shape):
        del group[key]
        group.create_dataset(key, (10**9, *values.shape[1:]), values.dtype, chunks=(1, *values.shape[1:]))
    elif way in ELSEWHERE and group[key].shape:
        ELSEWHERE[way][0](group, key, folder / "none")
    elif way == "a group":
        del group[key]
        group.create_group(key)
    elif way == "missing":
        del group[key]
    else:
        del group[key]
        group[key] = values


@pytest.mark.parametrize("kind", ["d4rl", "minari"])
@settings(QUIET, max_examples=30)
@given(data=st.data())
def test_hdf5_of_other_contents_is_at_most_a_sentence(kind, tmp_path_factory, monkeypatch, traced, data):
    source = pristine(kind, tmp_path_factory)
    path = hdf5_of(source)
    content = path.read_bytes()
    keys: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, node: keys.append(name) if hasattr(node, "shape") else None)
    try:
        with h5py.File(path, "a") as file:
            for key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2, unique=True)):
                way = data.draw(st.sampled_from(["values", "never written", "a group", "missing", *ELSEWHERE]))
                change_hdf5(file, key, way, data.draw(arrays()), path.parent)
        read_soundly(lambda: episodes_of(source), monkeypatch)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["ogbench", "exorl", "urlrl"])
@settings(QUIET, max_examples=30)
@given(data=st.data())
def test_numpy_files_of_other_contents_are_at_most_a_sentence(kind, tmp_path_factory, monkeypatch, traced, data):
    source = pristine(kind, tmp_path_factory)
    path = data.draw(st.sampled_from([path for path in files_of(source) if path.suffix != ".json"]))
    content, buffer, values = path.read_bytes(), io.BytesIO(), data.draw(arrays())
    if data.draw(st.booleans()):
        np.save(buffer, values)
    else:  # A header that says something, and numbers that are not those.
        buffer.write(npy_header(str(values.shape), values.dtype.str) + bytes(data.draw(st.integers(0, 200))))
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                key = data.draw(st.sampled_from(archive.namelist()))
            rewrite_npz(path, key.removesuffix(".npy"), buffer.getvalue())
        else:
            path.write_bytes(buffer.getvalue())
        read_soundly(lambda: episodes_of(source), monkeypatch)
    finally:
        path.write_bytes(content)


VALUES = st.sampled_from([None, True, -1, 0, 3, 10**30, 0.5, np.nan, np.inf, "", "a", [], [1], {}, [["a", np.inf]]])


@pytest.mark.parametrize("kind", ["urlrl", "minari"])
@settings(QUIET, max_examples=30)
@given(data=st.data())
def test_json_of_other_contents_is_at_most_a_sentence(kind, tmp_path_factory, monkeypatch, traced, data):
    source = pristine(kind, tmp_path_factory)
    path = source / ("dataset.json" if kind == "urlrl" else "data/metadata.json")
    content = path.read_text()
    stored = json.loads(content)
    changes = data.draw(st.dictionaries(st.sampled_from(sorted(stored)), VALUES, min_size=1, max_size=2))
    try:
        path.write_text(json.dumps(stored | changes))
        read_soundly(lambda: episodes_of(source), monkeypatch)
    finally:
        path.write_text(content)


@pytest.mark.parametrize("kind", ["exorl", "ogbench", "d4rl", "minari"])
@pytest.mark.parametrize("share", [0, 0.5, 0.97])
def test_files_cut_short_are_refused(kind, share, tmp_path_factory):
    source = pristine(kind, tmp_path_factory)
    for path in files_of(source):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        try:
            refusal(lambda: episodes_of(source), path)
        finally:
            path.write_bytes(content)


def test_an_archive_of_the_wrong_kind_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("observations.npy", b"not an array")
        archive.writestr("actions.npy", b"")
        archive.writestr("terminals.npy", b"\x93NUMPY\x01\x00")
    assert "cannot be read" in refusal(lambda: episodes_of(tmp_path / "a.npz"), tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", np.zeros(3))
    (tmp_path / "b.npy").rename(tmp_path / "episode_0_2.npz")
    (tmp_path / "a.npz").unlink()
    assert "cannot be read" in refusal(lambda: episodes_of(tmp_path), tmp_path)
