"""The doctor names what is known not to work, and survives an installation that does not."""

import os
import re
import subprocess
import sys

import pytest
from packaging.specifiers import SpecifierSet

from urlrl import doctor
from urlrl.cli.doctor import show

GOOD = {name: "1.0" for name in doctor.PACKAGES} | {
    "jax": "0.10.2", "jaxlib": "0.10.2", "flax": "0.12.8", "numpy": "2.4.6", "gymnasium": "1.4.0", "mujoco": "3.17.0",
    "dm_control": "1.0.50",
}  # fmt: skip


def test_tested_versions_have_no_problem():
    assert doctor.version_problems(GOOD) == []
    assert doctor.version_problems(GOOD | {"mujoco": "4.0.0", "dm_control": "1.0.51"}) == []


@pytest.mark.parametrize(
    "change, said",
    [
        ({"mujoco": "4.0.0"}, "mujoco 4.0.0 with dm_control 1.0.50: .*flex_vertedge.*mujoco>=3.17,<4"),
        ({"mujoco": "3.2.7"}, "mujoco 3.2.7"),
        ({"jax": "0.9.1"}, "jax 0.9.1.*jax>=0.10"),
        ({"mujoco": "4.1.0rc1"}, "mujoco 4.1.0rc1"),
        ({"flax": "0.11.0"}, "flax 0.11.0"),
        ({"numpy": "1.26.4"}, "numpy 1.26.4"),
        ({"gymnasium": "1.3.0"}, "gymnasium 1.3.0"),
        ({"jax-cuda12-plugin": "0.10.1"}, "jax-cuda12-plugin 0.10.1 with jaxlib 0.10.2.*cuda12"),
    ],
)
def test_known_bad_versions_are_named(change, said):
    (sentence,) = doctor.version_problems(GOOD | change)
    assert re.search(said, sentence)


def test_a_missing_package_is_named():
    (sentence,) = doctor.version_problems({name: version for name, version in GOOD.items() if name != "optax"})
    assert sentence == "optax is not installed: pip install optax."


def test_the_table_is_well_formed():
    for bad in doctor.KNOWN_BAD:
        assert set(bad.versions) <= set(doctor.PACKAGES)
        assert all(SpecifierSet(specifier) for specifier in bad.versions.values())
        assert bad.problem and not bad.problem.endswith(".") and bad.remedy


def test_this_installation(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(doctor, "find_gl", lambda: None)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "deep" / "cache"))
    found = doctor.diagnose()
    facts = dict(found.facts)
    assert found.ok == (not found.problems)
    assert facts["Compilation cache"] == str(tmp_path / "deep" / "cache")
    assert int(facts["Usable cores"]) >= 1 and facts["JAX devices"]
    assert any("no video" in note for note in found.notes)
    show(found)
    text = capsys.readouterr().out
    assert facts["numpy"] in text and "note  No GL backend" in text


def test_a_cache_that_is_a_file_is_noted(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file" / "cache"))
    _, problems, notes = doctor._look_at_cache()
    assert not problems and "not a writable folder" in notes[0]


def test_a_backend_that_does_not_exist_is_a_problem_with_a_remedy():
    code = "from urlrl import doctor; print(doctor._look_at_mujoco()[1][0], doctor._look_at_gl()[0][0])"
    env = {**os.environ, "MUJOCO_GL": "bogus"}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert "MuJoCo does not import" in said and "MUJOCO_GL is 'bogus': unset it." in said and "'none'" in said
