"""Skills in a control loop: how long one is held, how it turns, and a policy slower than its loop."""

import numpy as np
import pytest
from test_bundles import FB, HILP, OBS, make

from urlrl.skills.control import SkillSwitcher, TimedLoop, turned_toward
from urlrl.skills.policy import SkillController, SkillError

ZERO = np.zeros(OBS)


@pytest.fixture(scope="module")
def policy():
    return make(FB)


def skills(policy, n=3):
    return policy.sample(np.random.default_rng(0), n)


def test_a_skill_is_held_before_the_next_one_acts(policy):
    a, b, c = skills(policy)
    switcher = SkillSwitcher(policy, a, hold=3)
    found = [switcher(ZERO)]
    switcher.ask(b)
    found += [switcher(ZERO) for _ in range(2)]
    switcher.ask(c)  # Nobody waits for b any more.
    found += [switcher(ZERO) for _ in range(2)]
    for z, expected in zip(found, (a, a, a, c, c), strict=True):
        np.testing.assert_array_equal(z, expected)


def test_z_turns_along_the_shortest_way_by_so_much_at_most(policy):
    a, b, _ = skills(policy)
    switcher = SkillSwitcher(policy, a, slew=0.2)
    switcher(ZERO)
    switcher.ask(b)
    path = np.stack([a, *(switcher(ZERO) for _ in range(20))]).astype(float)
    unit = path / np.linalg.norm(path, axis=1, keepdims=True)
    steps = np.arccos(np.clip((unit[1:] * unit[:-1]).sum(axis=1), -1, 1))
    whole = np.arccos(unit[0] @ (b / np.linalg.norm(b)))
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 3**0.5, rtol=1e-5)
    np.testing.assert_allclose(steps.sum(), whole, atol=1e-3)  # No detour.
    assert steps.max() < 0.2 + 1e-3 and (path[-1] == b).all()
    policy.act(ZERO, path[3].astype(np.float32))  # Of the right length, so the policy takes it.


def test_from_the_opposite_it_turns_any_way():
    z = np.float32([1, 0, 0])
    turned = turned_toward(z, -z, 0.3)
    np.testing.assert_allclose([turned @ z, np.linalg.norm(turned)], [np.cos(0.3), 1], rtol=1e-5)


def test_a_prompt_is_asked_at_every_step_and_may_fail():
    policy = make(HILP, kind="sphere")
    goal = policy.prompt(goal=np.ones(OBS))
    switcher = SkillSwitcher(policy, goal, fallback="forward")
    np.testing.assert_array_equal(switcher(ZERO), goal.aim(ZERO))
    np.testing.assert_array_equal(switcher([np.nan] * OBS), policy.skills["forward"])
    with pytest.raises(SkillError, match="obs is nan"):
        SkillSwitcher(policy, goal)([np.nan] * OBS)


@pytest.mark.parametrize("hertz", [20, 100, 130, 1000])
def test_a_policy_of_20_hz_is_asked_20_times_a_second(policy, hertz, monkeypatch):
    asked, act = [], policy.act
    monkeypatch.setattr(policy, "act", lambda obs, z: asked.append(obs) or act(obs, z))
    loop, sent = TimedLoop(policy), []
    for t in np.arange(10 * hertz) / hertz:
        sent.append(loop(t, np.full(OBS, t), "forward"))
    assert abs(len(asked) - 200) <= 1 and loop.late == 0
    expected = policy.scale(act(asked[0], "forward"))
    np.testing.assert_array_equal(sent[0], expected)
    held = int(0.05 * hertz)
    assert all((ctrl == expected).all() for ctrl in sent[: max(1, held - 1)])


def test_a_late_loop_sends_what_is_safe_until_the_next_action_is_due(policy):
    loop = TimedLoop(policy, timeout=0.1)
    acted = loop(0.0, ZERO, "forward")
    assert not (acted == 1).all()
    np.testing.assert_array_equal(loop(0.2, ZERO, "forward"), [1, 1])  # The middle of [-1, 3].
    np.testing.assert_array_equal(loop(0.21, ZERO, "forward"), [1, 1])
    np.testing.assert_array_equal(loop(0.25, ZERO, "forward"), acted)
    assert loop.late == 1
    own = TimedLoop(policy, timeout=0.1, safe=[0.5, -0.5])
    own(0.0, ZERO, "forward")
    np.testing.assert_array_equal(own(1.0, ZERO, "forward"), [0.5, -0.5])


def test_where_an_observation_is_refused_the_loop_goes_on_with_what_is_safe(policy):
    loop = TimedLoop(policy)
    acted = loop(0.0, ZERO, "forward")
    np.testing.assert_array_equal(loop(0.05, [np.nan] * OBS, "forward"), [1, 1])
    assert loop.refused == 1 and loop.error.startswith("obs is nan at entry 0")
    np.testing.assert_array_equal(loop(0.1, ZERO, "forward"), acted)


def test_what_it_returns_and_is_given_may_be_changed(policy):
    loop = TimedLoop(policy, timeout=0.1)
    first = loop(0.0, ZERO, "forward")
    sent = loop(0.01, ZERO, "forward")
    sent *= 0
    np.testing.assert_array_equal(loop(0.02, ZERO, "forward"), first)
    late = loop(1.0, ZERO, "forward")
    late -= 1
    np.testing.assert_array_equal(loop.safe, [1, 1])
    a, b, _ = skills(policy)
    buffer = a.copy()
    switcher = SkillSwitcher(policy, buffer, hold=100)
    switcher(ZERO)
    buffer[:] = b
    switcher.ask(buffer)
    np.testing.assert_array_equal(switcher(ZERO), a)


def test_to_ask_for_the_skill_that_acts_changes_nothing(policy):
    a, b, _ = skills(policy)
    switcher = SkillSwitcher(policy, a, hold=3)
    for _ in range(4):
        switcher(ZERO)
    switcher.ask(a.copy())
    switcher(ZERO)
    switcher.ask(b)
    np.testing.assert_array_equal(switcher(ZERO), b)  # The hold of a did not begin anew.


def test_a_switcher_is_asked_once_for_each_action(policy):
    a, b, _ = skills(policy)
    switcher, loop = SkillSwitcher(policy, a, hold=2), TimedLoop(policy)
    sent = [loop(t, ZERO, switcher) for t in (0.0, 0.01)]
    switcher.ask(b)
    sent += [loop(t, ZERO, switcher) for t in (0.05, 0.1)]
    for ctrl, z in zip(sent, (a, a, a, b), strict=True):
        np.testing.assert_array_equal(ctrl, policy.scale(policy.act(ZERO, z)))


# --- a controller over skills


@pytest.fixture(scope="module")
def controller():
    return SkillController(make(FB, hold=3))


def test_a_controller_chooses_a_skill_and_holds_it_until_the_next_choice(controller):
    policy, inputs = controller.policy, np.random.default_rng(1).normal(size=(7, OBS + 1)).astype(np.float32)
    controller.reset()
    acted = [controller.act(row) for row in inputs]
    for i, action in enumerate(acted):
        z = policy.choose(inputs[i // 3 * 3])
        np.testing.assert_array_equal(action, policy.act(inputs[i, :OBS], z))
        np.testing.assert_allclose(np.linalg.norm(z), 3**0.5, rtol=1e-5)
    controller.reset()
    np.testing.assert_array_equal(controller.act(inputs[4]), policy.act(inputs[4, :OBS], policy.choose(inputs[4])))
    controller.reset()
    assert controller.act(inputs).shape == (7, 2)  # Rows that began together.


def test_what_a_controller_refuses_leaves_its_clock_as_it_was(controller):
    row = np.ones(OBS + 1)
    controller.reset()
    controller.act(row)
    for wrong, message in (
        ([1] * OBS, r"inputs has shape \(4,\): expected \(5,\) or \(n, 5\)"),
        ([*row[:-1], np.nan], r"inputs is nan at entry 4 \('goal_x'\): expected finite numbers"),
    ):
        with pytest.raises(SkillError, match=message):
            controller.act(wrong)
    with pytest.raises(SkillError, match="z is 'forward': expected none, as the controller chooses it"):
        controller.act(row, "forward")
    assert controller.held == 1


def test_a_timed_loop_drives_a_controller(controller):
    controller.reset()
    loop, row = TimedLoop(controller), np.ones(OBS + 1)
    sent = [loop(t, row) for t in (0.0, 0.01, 0.05)]
    assert controller.held == 2
    expected = controller.policy.act(row[:OBS], controller.policy.choose(row))
    np.testing.assert_array_equal(sent, [controller.scale(expected)] * 3)


def test_a_bundle_without_a_controller_says_so(policy):
    for call in (lambda: SkillController(policy), lambda: policy.choose([0] * OBS)):
        with pytest.raises(SkillError, match="This bundle has no controller over skills: expected one with the role"):
            call()


def test_what_cannot_be_is_named(policy):
    gaussian = make({}, kind="gaussian")
    for call, message in (
        (lambda: SkillSwitcher(policy, "forwrd"), "Unknown skill 'forwrd': did you mean 'forward'"),
        (lambda: SkillSwitcher(policy, "forward", hold=0), "hold is 0: expected at least 1 action"),
        (lambda: SkillSwitcher(policy, "forward", slew=0), "slew is 0 and skills are 'wide_sphere'"),
        (lambda: SkillSwitcher(gaussian, "forward", slew=1), "slew is 1 and skills are 'gaussian'"),
        (lambda: SkillSwitcher(policy, "forward").ask([1, 2]), r"z has shape \(2,\)"),
        (lambda: TimedLoop(policy, timeout=0), "timeout is 0: expected more than 0 seconds"),
        (lambda: TimedLoop(policy, safe=[0.0]), r"safe is \[0\.0\]: expected 2 finite numbers"),
        (lambda: TimedLoop(policy, safe=[0.0, np.nan]), r"expected 2 finite numbers"),
        (lambda: TimedLoop(policy)(0.0, [np.nan] * OBS, "forward"), "obs is nan"),
    ):
        with pytest.raises(SkillError, match=message):
            call()
    loop = TimedLoop(policy)
    loop(1.0, ZERO, "forward")
    with pytest.raises(SkillError, match=r"now is 0\.5 s, after 1 s: expected times that do not run backwards"):
        loop(0.5, ZERO, "forward")
