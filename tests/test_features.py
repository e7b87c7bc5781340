"""Kinematics against MuJoCo, and the features that are made of them."""

import mujoco
import numpy as np
import pytest

from urlrl.envs import make_env
from urlrl.errors import UserError
from urlrl.tasks.features import NAMES, _model, evaluate, features
from urlrl.tasks.kinematics import CHUNK, Kinematics, by_rows

# Every type of joint, anchors and centres of mass off the origin, turned frames, several joints on one body.
ODD = """<mujoco><worldbody>
  <body name="torso" pos=".1 .2 .3" euler="20 30 40"><freejoint/><geom size=".1" pos=".1 0 .05"/>
    <body pos=".2 0 .1" euler="10 -50 0"><joint type="ball" pos=".05 .1 -.02"/><geom type="box" size=".1 .2 .3"/>
      <body pos="0 .3 0" euler="0 0 70"><joint type="slide" axis="1 1 0"/><joint axis="1 2 3" pos=".1 .1 .1" ref="30"/>
        <joint axis="0 -1 0" pos="0 .2 0"/><geom type="capsule" size=".05" fromto="0 0 0 .1 .2 .3"/>
        <body pos=".1 .1 0" euler="45 0 0"><geom size=".07" pos="0 0 .2"/></body>
      </body></body></body>
  <body pos="3 0 0"><freejoint/><geom size=".5"/></body>
</worldbody></mujoco>"""
MODELS = ["dmc:cheetah_run", "dmc:walker_walk", "dmc:quadruped_walk", "dmc:humanoid_walk", "ant", "half_cheetah", "odd"]


def load(name):
    return mujoco.MjModel.from_xml_string(ODD) if name == "odd" else _model(name)


def random_rows(model, num, seed=0):
    """qpos, qvel and one number that does not concern the kinematics; quaternions without unit length."""
    return 2 * np.random.default_rng(seed).normal(size=(num, model.nq + model.nv + 1))


def by_mujoco(model, rows):
    """What `mj_kinematics` and its kin compute: field -> (n, ...)."""
    found, data = [], mujoco.MjData(model)
    for row in rows:
        data.qpos[:], data.qvel[:] = row[: model.nq], row[model.nq : model.nq + model.nv]
        for compute in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_comVel, mujoco.mj_subtreeVel):
            compute(model, data)
        velocity = np.zeros((model.nbody, 6))
        for body in range(model.nbody):
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity[body], 1)
        spin = np.einsum("bij,bj->bi", data.xmat.reshape(-1, 3, 3), velocity[:, :3])
        whole = data.subtree_com[1], data.subtree_linvel[1], data.subtree_angmom[1]
        body = data.xpos, data.xmat.reshape(-1, 3, 3), data.xipos, spin, velocity[:, 3:]
        found.append([part.copy() for part in (*body, *whole)])
    return [np.stack(part) for part in zip(*found)]


def by_kinematics(model, rows):
    pose = Kinematics(model)(rows)
    body = (pose.position, pose.orientation, pose.inertial_position, pose.angular_velocity, pose.local_velocity)
    per_body = [np.stack([of(i) for i in range(model.nbody)], axis=1) for of in body]
    return [*per_body, pose.com(), pose.com_velocity(), pose.angular_momentum()]


@pytest.mark.parametrize("name", MODELS)
def test_kinematics_equal_mujocos(name):
    model = load(name)
    rows = random_rows(model, 20)
    for got, expected in zip(by_kinematics(model, rows), by_mujoco(model, rows)):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    "wrong", ["velocimeter in the world's frame", "momentum about the torso", "no ref", "no armlen"]
)
def test_the_comparison_with_mujoco_finds_wrong_formulas(wrong):
    model = load("odd")
    rows = random_rows(model, 5)
    expected = by_mujoco(model, rows)
    _, axes, centres, _, velocity, com, linear, angular = expected
    if wrong == "velocimeter in the world's frame":
        got, right = np.einsum("nbij,nbj->nbi", axes, velocity), velocity
    elif wrong == "momentum about the torso":
        got, right = angular + np.cross(com - expected[0][:, 1], linear * model.body_subtreemass[1]), angular
    elif wrong == "no ref":
        right = centres
        model.qpos0[:] = 0
        got = by_kinematics(model, rows)[2]
    else:  # The centre of a body moves as its origin does.
        masses = model.body_mass[1:5] / model.body_subtreemass[1]
        got, right = np.einsum("b,nbij,nbj->ni", masses, axes[:, 1:5], velocity[:, 1:5]), linear
    assert np.abs(got - right).max() > 0.01


def test_a_row_does_not_depend_on_the_others_and_leading_axes_stay():
    model = load("ant")
    kinematics = Kinematics(model)
    rows = random_rows(model, CHUNK + 6)
    whole = by_rows(lambda rows: kinematics(rows).angular_momentum().T, rows)
    assert whole.shape == (3, len(rows))
    part = by_rows(lambda rows: kinematics(rows).angular_momentum().T, rows[CHUNK - 3 : CHUNK + 3].reshape(2, 3, -1))
    assert np.array_equal(part.reshape(3, 6), whole[:, CHUNK - 3 : CHUNK + 3])
    assert by_rows(lambda rows: kinematics(rows).com().T, rows[:0]).shape == (3, 0)


# Features


@pytest.mark.parametrize(
    "name",
    [
        "ant",
        "half_cheetah_hurdle",
        "point",
        "maze:rooms_cells",
        *(n for n in NAMES if n.endswith(("_walk", "cheetah_run"))),
    ],
)
def test_every_feature_of_an_environment_is_a_finite_number_per_row(name):
    env = make_env(name, 4)
    env.reset(seed=0)
    action = np.random.default_rng(0).uniform(-1, 1, env.action_space.shape)
    env.step(action)
    found = features(name)
    together = evaluate(list(found.values()), env.physics(), action)
    assert together.shape == (len(found), 4) and np.isfinite(together).all()
    for row, (key, feature) in zip(together, found.items()):
        assert key.isidentifier() and feature.about and "\n" not in feature.about
        assert np.array_equal(feature(env.physics(), action), row)
    env.close()


@pytest.mark.parametrize("name", ["ant", "half_cheetah", "dmc:walker_walk", "dmc:quadruped_run", "dmc:humanoid_run"])
def test_a_body_that_moves_as_a_whole_has_the_velocity_and_place_of_its_root(name):
    model, found = _model(name), features(name)
    free = model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
    row = np.concatenate([model.qpos0, np.zeros(model.nv)])
    slide = (lambda axis: axis) if free else (lambda axis: model.joint(f"root{'xyz'[axis]}").qposadr[0])
    row[slide(0)], row[slide(2)] = 7.0, row[slide(2)] + 0.5
    row[model.nq + slide(0)], row[model.nq + slide(2)] = 2.0, -3.0
    torso = 0.5 + mujoco_height(model)
    expected = {"x": 7.0, "z": torso, "height": torso, "vx": 2.0, "vz": -3.0, "speed": 2.0, "upright": 1.0, "ly": 0.0}
    for key, value in expected.items():
        np.testing.assert_allclose(found[key](row, np.zeros(model.nu)), value, atol=1e-9, err_msg=key)


def mujoco_height(model):
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return data.body("torso").xpos[2]


@pytest.mark.parametrize("angle", [0.3, -1.0])
def test_pitch_of_planar_and_floating_bodies_tips_forward(angle):
    for name in ("dmc:walker_walk", "ant"):
        model, found = _model(name), features(name)
        row = np.concatenate([model.qpos0, np.zeros(model.nv)])
        if name == "ant":
            row[3:7] = np.cos(angle / 2), 0, np.sin(angle / 2), 0
            row[model.nq + 4] = 2.0
        else:
            row[model.joint("rooty").qposadr[0]] = angle
            row[model.nq + model.joint("rooty").dofadr[0]] = 2.0
            assert found["pitch_vel"](row, np.zeros(6)) == 2.0
        values = {key: float(found[key](row, np.zeros(model.nu))) for key in ("pitch", "upright", "ly")}
        assert values["pitch"] == pytest.approx(angle)
        assert values["upright"] == pytest.approx(np.cos(angle))
        assert values["ly"] > 0.1


def test_heading_turn_and_forward_of_an_ant_that_looks_along_y():
    found, row = features("ant"), np.zeros(29)
    row[:7] = 1.0, 2.0, 0.5, np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4)
    row[15:21] = 0.0, 3.0, 0.0, 0.0, 0.0, 1.5
    values = {key: float(feature(row, np.zeros(8))) for key, feature in found.items()}
    expected = {"x": 1, "y": 2, "yaw": np.pi / 2, "pitch": 0, "roll": 0, "forward": 3, "turn": 1.5, "vy": 3, "speed": 3}
    assert {key: values[key] for key in expected} == pytest.approx(
        expected, abs=1e-2
    )  # Its centre of mass is off axis.
    assert values["lz"] > 0


def test_joints_and_actions_go_by_their_names():
    found = features("half_cheetah")
    row, action = np.arange(18.0), np.array([0.5, -0.5, 2.0, 0.0, 0.0, 0.0])
    assert found["bthigh"](row, action) == 3.0 and found["ffoot_vel"](row, action) == 17.0
    assert found["energy"](row, action) == pytest.approx((0.25 + 0.25 + 1) / 6)  # Actions are clipped, as in a step.
    assert found["effort"](row, action) == pytest.approx((0.5 + 0.5 + 1) / 6)
    point = features("point")
    assert point["vx"](np.zeros(2), np.array([-3.0, 0.5])) == -1.0
    assert point["speed"](np.zeros(2), np.array([0.6, 0.8])) == pytest.approx(1.0)


def test_an_environment_without_features_is_named_with_those_that_have_them():
    with pytest.raises(
        UserError, match=r"^Environment 'gym:Pendulum-v1' has no named features: expected .*half_cheetah"
    ):
        features("gym:Pendulum-v1")
