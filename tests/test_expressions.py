"""Rewards as text: what is allowed equals NumPy, everything else is refused in one sentence, nothing is ever run."""

import ast
import builtins
import inspect
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from urlrl.errors import UserError
from urlrl.tasks import expressions
from urlrl.tasks.expressions import MAX_DEPTH, MAX_LENGTH, parse

V = {
    "vx": np.array([1.5, -0.3, 0.0, 2.0]),
    "height": np.array([0.5, 0.6, 0.0, 1.0]),
    "upright": np.array([1.0, -1.0, 0.25, 0.0]),
}
N = 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vx * upright - 0.1 * height", V["vx"] * V["upright"] - 0.1 * V["height"]),
        ("-vx ** 2", -(V["vx"] ** 2)),  # Python's precedence
        ("(vx + 3) ** -1.5", (V["vx"] + 3) ** -1.5),
        ("vx > 0", [1, 0, 0, 1]),
        ("(vx > 0) - (vx < 0)", [1, -1, 0, 1]),  # 0 and 1, not truth values, which NumPy cannot subtract
        ("-(vx > 0)", [-1, 0, 0, -1]),
        ("0 < vx <= 1.5", [1, 0, 0, 0]),
        ("vx and upright", [1, 1, 0, 0]),  # 0 or 1, not Python's last value
        ("vx or upright", [1, 1, 1, 1]),
        ("not vx", [0, 0, 1, 0]),
        ("10 if vx > 0 else height", [10, 0.6, 0, 10]),
        ("where(vx != 0, 1 / vx, 7)", [1 / 1.5, -1 / 0.3, 7, 0.5]),  # What is not taken may be infinite.
        ("min(vx, 1, height) + max(vx, 1)", np.minimum(np.minimum(V["vx"], 1), V["height"]) + np.maximum(V["vx"], 1)),
        ("clip(vx, 0, 1)", [1, 0, 0, 1]),
        ("exp(-abs(vx)) + sin(vx) * cos(vx) - tanh(vx) + sqrt(height) + log(2 + upright)",
         np.exp(-abs(V["vx"])) + np.sin(V["vx"]) * np.cos(V["vx"]) - np.tanh(V["vx"]) + np.sqrt(V["height"])
         + np.log(2 + V["upright"])),
        (" +vx\t", V["vx"]),
    ],
)  # fmt: skip
def test_values_are_numpys(text, expected):
    found = parse(text, V)(V)
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    assert found.shape == (N,) and found.dtype == np.float64


def test_only_the_names_that_are_used_are_asked_for():
    expression = parse("vx + height * vx", V)
    assert expression.names == ("height", "vx")
    expression({name: V[name] for name in expression.names})


def test_the_data_stay_as_they_are():
    found = parse("vx", V)(V)
    found[:] = 0
    assert V["vx"][0] == 1.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed", "Unknown name 'speed' in the reward: expected one of height, upright, vx"),
        ("vxx * 2", "did you mean 'vx'? There are height, upright, vx"),
        ("foo(vx)", "Unknown function 'foo'"),
        ("minn(vx, 1)", "did you mean 'min'?"),
        ("__import__('os').system('true')", "__import__"),
        ("vx.real", "'vx.real'"),
        ("vx.__class__.__mro__", "'vx.__class__.__mro__'"),
        ("vx[0]", "'vx[0]'"),
        ("'vx'", "vx"),
        ("f'{vx}'", "vx"),
        ("lambda: vx", "lambda"),
        ("[vx for vx in vx]", "for vx"),
        ("(vx := 1)", "vx := 1"),
        ("max(*vx)", "argument"),
        ("clip(x=vx)", "clip(x=vx)"),
        ("abs(vx, 1)", "abs(...) has 2 argument(s): expected 1"),
        ("max(vx)", "max(...) has 1 argument(s): expected at least 2"),
        ("vx // 2", "vx // 2"),
        ("vx % 2", "vx % 2"),
        ("vx @ vx", "vx @ vx"),
        ("~vx", "~vx"),
        ("vx is vx", "vx is vx"),
        ("1j * vx", "1j"),
        ("True * vx", "True"),
        ("None", "None"),
        ("... + vx", "..."),
        ("vx ** vx", "exponent 'vx': expected a number up to 8"),
        ("vx ** 9", "exponent '9': expected a number up to 8"),
        ("vx ** True", "exponent 'True'"),
        ("1e999 * vx", "number '1e999'"),
        ("9" * 400 + " * vx", "number '999"),
        ("", "not one expression"),
        ("vx; vx", "not one expression"),
        ("vx = 1", "not one expression"),
        ("vx\nvx", "not one expression"),
        ("vx\0", "not one expression"),
        ("\ud800", "not one expression"),
        ("(" * 300 + "vx" + ")" * 300, "not one expression"),
        ("1 + 2", "same everywhere"),
        ("vx " * MAX_LENGTH, f"expected at most {MAX_LENGTH:,}"),
        ("-" * 200 + "vx", "nested too deeply"),
        ("+".join(["vx"] * (MAX_DEPTH + 1)), "nested too deeply"),
    ],
)
def test_what_is_refused(text, said):
    with pytest.raises(UserError) as error:
        parse(text, V)
    assert said in str(error.value) and str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sqrt(vx) + height", "not finite in 1 of 4 states: sqrt(vx) is nan where vx = -0.3."),
        ("1 / vx", "1 / vx is inf where vx = 0."),
        ("height + exp(1000 * (vx + 1))", "exp(1000 * (vx + 1)) is inf where vx = 1.5."),
        ("where(vx != 0, 1 / vx, 0) + log(height)", "log(height) is -inf where height = 0."),
    ],
)
def test_what_is_not_finite_is_named(text, said):
    with pytest.raises(UserError) as error:
        parse(text, V)(V)
    assert said in str(error.value)


# --- Fuzzing ----------------------------------------------------------------------------------------------------------

TOKENS = st.sampled_from(
    [*V, "speed", "1", "0", "-3.5", "1e308", "2", "9", "+", "-", "*", "/", "**", "(", ")", ",", "<", "==", " and ",
     " or ", "not ", " if ", " else ", "min", "abs", "sqrt", "where", "exp", "clip", "[", "]", ".", ":", "lambda ",
     "'", "__import__", "eval", "open", "\n", "#", "\\", "=", "await ", "{", "}", "f'", "é", "ⅹ"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(TOKENS, max_size=14).map("".join), st.text("vxheigt()+-*/0.,<> ^&"))


def forbid(*_, **__):
    raise AssertionError("a reward was executed")


@settings(max_examples=400, deadline=None)
@example("__import__('os').abort()")
@example("open('x', 'w')")
@example("(lambda: exit())()")
@given(TEXTS)
def test_any_text_is_finite_numbers_or_one_sentence(text):
    before = {name: getattr(builtins, name) for name in ("eval", "exec", "open")}
    for name in before:
        setattr(builtins, name, forbid)
    try:
        found = parse(text, V)(V)
    except UserError:
        return
    finally:
        for name, function in before.items():
            setattr(builtins, name, function)
    assert found.shape == (N,) and found.dtype == np.float64 and np.isfinite(found).all()


def test_the_module_runs_no_code():
    """The only call that touches the text is `ast.parse`."""
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(inspect.getsource(expressions)))
              if isinstance(node, ast.Call)}  # fmt: skip
    assert "ast.parse" in called
    assert not called & {"eval", "exec", "compile", "__import__", "getattr", "ast.literal_eval", "globals", "locals"}


LEAVES = st.one_of(
    st.sampled_from(sorted(V)).map(lambda name: (name, V[name])),
    st.integers(0, 50).map(lambda n: (f"{n / 8}", np.full(N, n / 8))),
)


def _grow(inner):
    """(text, value) of a larger tree: the value by plain NumPy, without the library."""

    def binary(op, function):
        return st.tuples(inner, inner).map(lambda ab: (f"({ab[0][0]} {op} {ab[1][0]})", function(ab[0][1], ab[1][1])))

    def unary(form, function):
        return inner.map(lambda a: (form.format(a[0]), function(a[1])))

    return st.one_of(
        binary("+", np.add), binary("-", np.subtract), binary("*", np.multiply), binary("/", np.divide),
        binary("<", lambda a, b: (a < b) * 1.0), binary(">=", lambda a, b: (a >= b) * 1.0),
        binary("and", lambda a, b: ((a != 0) & (b != 0)) * 1.0), binary("or", lambda a, b: ((a != 0) | (b != 0)) * 1.0),
        unary("-{}", np.negative), unary("(not {})", lambda a: (a == 0) * 1.0), unary("abs({})", np.abs),
        unary("({}) ** 2", np.square), unary("sqrt({})", np.sqrt), unary("tanh({})", np.tanh),
        unary("exp({})", np.exp), unary("clip({}, -1, 2)", lambda a: np.clip(a, -1, 2)),
        st.tuples(inner, inner, inner).map(
            lambda abc: (f"({abc[0][0]} if {abc[1][0]} else {abc[2][0]})",
                         np.where(abc[1][1] != 0, abc[0][1], abc[2][1]))
        ),
        st.tuples(inner, inner).map(lambda ab: (f"min({ab[0][0]}, {ab[1][0]})", np.minimum(ab[0][1], ab[1][1]))),
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the plain NumPy beside it
@settings(max_examples=200, deadline=None)
@given(st.recursive(LEAVES, _grow, max_leaves=12))
def test_random_trees_are_numpys(tree):
    text, _ = tree
    if len(text) > MAX_LENGTH or not any(name in text for name in V):
        return
    value = tree[1]
    if not np.isfinite(value).all():
        with pytest.raises(UserError, match="not finite"):
            parse(text, V)(V)
    else:
        np.testing.assert_allclose(parse(text, V)(V), value, rtol=1e-12, atol=1e-300)


def test_the_tree_check_finds_python_truth():
    """The wrong variant: `and` that returns its last value, as Python's does."""
    assert not np.array_equal(parse("vx and height", V)(V), np.where(V["vx"] != 0, V["height"], V["vx"]))
    assert math.isclose(parse("vx and height", V)(V)[0], 1.0)
