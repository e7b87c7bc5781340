"""Networks, optimisers and the tanh-normal head against NumPy (sheet, sections 1.2, 1.3, 7.2 and 7.6)."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from urlrl.learners.distributions import TanhNormal
from urlrl.learners.model import Model, PositiveScalar, soft_update
from urlrl.learners.nets import (
    MLP,
    ConvNet,
    ConvPolicy,
    Critics,
    TanhPolicy,
    as_image,
    orthogonal,
    xavier_normal,
    xavier_uniform,
)
from urlrl.learners.statistics import Normalizer

IN, ACT, WIDTH = 5, 3, 128
RNG = np.random.default_rng(0)
X = RNG.standard_normal((64, IN)).astype(np.float32)
ACTION = RNG.uniform(-1, 1, (64, ACT)).astype(np.float32)


def named(variants: dict):
    """Run a test for each wrong variant, under its name."""
    return pytest.mark.parametrize("wrong", list(variants.values()), ids=list(variants))


def test_this_run_watches_keys_and_ranks():
    assert jax.config.jax_debug_key_reuse
    assert jax.config.jax_numpy_rank_promotion == "raise"


# --- The tanh-normal head ---------------------------------------------------------------------------------------------


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def numeric_log_density(mean: np.ndarray, std: np.ndarray, action: np.ndarray) -> np.ndarray:
    """log d/da P(tanh(u) <= a) per dimension, by central differences of the distribution function."""
    h = 1e-5 * (1 - action**2)
    above, below = (normal_cdf((np.arctanh(a) - mean) / std) for a in (action + h, action - h))
    return np.log((above - below) / (2 * h))


def check_log_prob(dist_class):
    mean = RNG.uniform(-1, 1, (512, ACT)).astype(np.float32)
    log_std = RNG.uniform(-1.5, 0, (512, ACT)).astype(np.float32)
    action, log_prob = dist_class(jnp.asarray(mean), jnp.asarray(log_std)).sample_and_log_prob(jax.random.key(0))
    action = np.asarray(action, np.float64)
    rows = (np.abs(action) < 0.99).all(axis=-1)
    assert rows.sum() > 300 and np.abs(action[rows]).max() > 0.95
    expected = numeric_log_density(mean[rows], np.exp(log_std[rows].astype(np.float64)), action[rows]).sum(axis=-1)
    np.testing.assert_allclose(np.asarray(log_prob)[rows], expected, rtol=0, atol=1e-4 * ACT)


class WrongLogProb(TanhNormal):
    """The normal's log density, and a correction for the tanh that a subclass gets wrong."""

    def sample_and_log_prob(self, key):
        noise = jax.random.normal(key, self.mean.shape)
        action = jnp.tanh(self.mean + jnp.exp(self.log_std) * noise)
        log_normal = -0.5 * noise**2 - self.log_std - 0.5 * jnp.log(2 * jnp.pi)
        return action, self.reduce(log_normal, jnp.log(1 - action**2 + self.floor))

    floor, reduce = 1e-6, staticmethod(lambda log_normal, log_slope: jnp.sum(log_normal - log_slope, axis=-1))


class NoTanhCorrection(WrongLogProb):
    reduce = staticmethod(lambda log_normal, log_slope: jnp.sum(log_normal, axis=-1))


class CorrectionSignFlipped(WrongLogProb):
    reduce = staticmethod(lambda log_normal, log_slope: jnp.sum(log_normal + log_slope, axis=-1))


class MeanOverDimensions(WrongLogProb):
    reduce = staticmethod(lambda log_normal, log_slope: jnp.mean(log_normal - log_slope, axis=-1))


class FloorTooHigh(WrongLogProb):
    floor = 1e-3


def test_log_prob_is_the_change_of_variables():
    check_log_prob(TanhNormal)
    check_log_prob(WrongLogProb)  # The scaffold of the wrong variants is itself right.


@pytest.mark.parametrize("wrong", [NoTanhCorrection, CorrectionSignFlipped, MeanOverDimensions, FloorTooHigh])
def test_log_prob_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_log_prob(wrong)


def check_temperature(dist_class):
    dist = dist_class(jnp.float32([[0.3, -1.2]]), jnp.float32([[-0.5, 0.2]]))
    mode = np.tanh(np.float32([[0.3, -1.2]]))
    np.testing.assert_allclose(dist.mode(), mode, rtol=1e-6)
    np.testing.assert_array_equal(dist.sample(jax.random.key(1), 0.0), dist.mode())
    np.testing.assert_array_equal(dist.sample(jax.random.key(1), jnp.float32(0)), dist.mode())
    # The temperature scales the standard deviation: in u, half the temperature is half the way from the mean.
    far, near = (np.arctanh(dist.sample(jax.random.key(1), t)) - dist.mean for t in (1.0, 0.5))
    np.testing.assert_allclose(far, 2 * near, rtol=1e-4)
    np.testing.assert_allclose(
        dist.sample(jax.random.key(1)), dist.sample_and_log_prob(jax.random.key(1))[0], rtol=1e-6
    )


class ModeWithoutTanh(TanhNormal):
    def mode(self):
        return self.mean


class TemperatureScalesVariance(TanhNormal):
    def sample(self, key, temperature=1.0):
        return super().sample(key, temperature**0.5)


class TemperatureIgnored(TanhNormal):
    def sample(self, key, temperature=1.0):
        return super().sample(key)


def test_temperature():
    check_temperature(TanhNormal)


@pytest.mark.parametrize("wrong", [ModeWithoutTanh, TemperatureScalesVariance, TemperatureIgnored])
def test_temperature_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_temperature(wrong)


def test_saturated_actions_keep_log_prob_and_its_gradient_finite():
    def mean_log_prob(mean):
        return jnp.mean(TanhNormal(mean, jnp.zeros_like(mean)).sample_and_log_prob(jax.random.key(0))[1])

    for mean in (0.0, 20.0, -1e4):
        value, grad = jax.jit(jax.value_and_grad(mean_log_prob))(jnp.full((4, 2), mean, jnp.float32))
        assert np.isfinite(value) and np.isfinite(grad).all()


# --- The networks -----------------------------------------------------------------------------------------------------


def layers(params) -> list[tuple[np.ndarray, np.ndarray]]:
    """(kernel, bias) of every Dense layer, in order."""
    return [
        (np.asarray(params[f"Dense_{i}"]["kernel"]), np.asarray(params[f"Dense_{i}"]["bias"]))
        for i in range(len(params))
    ]


def numpy_mlp(params, x, activation):
    *hidden, (kernel, bias) = layers(params)
    for w, b in hidden:
        x = activation(x @ w + b)
    return x @ kernel + bias


def relu(x):
    return np.maximum(x, 0)


def with_biases(params):
    """The same parameters with biases that are not 0, so that a forgotten one is seen."""
    return jax.tree.map(lambda p: p + 0.1 if p.ndim == 1 else p, params)


def check_policy(module):
    params = with_biases(module.init(jax.random.key(0), X)["params"])
    dist = module.apply({"params": params}, X)
    (w0, b0), (w1, b1), (w_mean, b_mean), (w_std, b_std) = layers(params)
    trunk = np.tanh(np.tanh(X @ w0 + b0) @ w1 + b1)
    np.testing.assert_allclose(dist.mean, trunk @ w_mean + b_mean, atol=1e-5)
    np.testing.assert_allclose(dist.log_std, trunk @ w_std + b_std, atol=1e-5)


def check_policy_start(module):
    params = module.init(jax.random.key(0), X)["params"]
    dist = module.apply({"params": params}, X)
    assert np.abs(dist.log_std).max() < 0.35
    assert np.abs(dist.mean).max() < 0.35
    *hidden, mean_head, std_head = layers(params)
    for kernel, bias in hidden:
        check_xavier("uniform", kernel, bias)
    for kernel, bias in (mean_head, std_head):
        check_xavier("normal", kernel / 0.1, bias)
    assert not np.allclose(mean_head[0], std_head[0])


class FullScaleHeads(TanhPolicy):
    """Output heads at Xavier's scale instead of a tenth."""

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            x = self.activation(nn.Dense(self.width, kernel_init=xavier_uniform)(x))
        return TanhNormal(*(nn.Dense(self.action_dim, kernel_init=xavier_normal)(x) for _ in range(2)))


def test_policy():
    check_policy(TanhPolicy(ACT, 16))
    check_policy_start(TanhPolicy(ACT, WIDTH))


def test_policy_check_finds_a_relu_trunk():
    with pytest.raises(AssertionError):
        check_policy(TanhPolicy(ACT, 16, activation=nn.relu))


def test_policy_check_finds_full_scale_heads():
    with pytest.raises(AssertionError):
        check_policy_start(FullScaleHeads(ACT, WIDTH))


def test_log_std_is_clamped():
    module = TanhPolicy(ACT, 16)
    params = module.init(jax.random.key(0), X)["params"]
    for bias, expected in ((1e3, 2.0), (-1e3, math.log(1e-6))):
        params["Dense_3"]["bias"] = jnp.full(ACT, bias, jnp.float32)
        np.testing.assert_allclose(module.apply({"params": params}, X).log_std, expected, rtol=1e-6)


def check_xavier(shape: str, kernel: np.ndarray, bias: np.ndarray):
    """Kernel of variance 2 / (fan_in + fan_out), of the named shape: of |kernel| / std the mean tells the two apart."""
    std = math.sqrt(2 / sum(kernel.shape))
    noise = 5 / math.sqrt(kernel.size)  # five standard errors, and more for a uniform
    assert abs(kernel.std() / std - 1) < noise and abs(kernel.mean()) / std < noise
    if kernel.size > 5000:
        assert (
            abs(np.abs(kernel).mean() / std - {"uniform": math.sqrt(3) / 2, "normal": math.sqrt(2 / math.pi)}[shape])
            < 0.03
        )
    if shape == "uniform":
        assert np.abs(kernel).max() <= std * math.sqrt(3) * (1 + 1e-6)
    assert (bias == 0).all()


def check_phi(module):
    params = module.init(jax.random.key(0), X)["params"]
    assert len(params) == 3
    for kernel, bias in layers(params):
        check_xavier("uniform", kernel, bias)
    params = with_biases(params)
    np.testing.assert_allclose(module.apply({"params": params}, X), numpy_mlp(params, X, relu), atol=1e-5)


class SigmoidOutput(MLP):
    def __call__(self, x):
        return nn.sigmoid(super().__call__(x))


def test_phi_network():
    check_phi(MLP(2, WIDTH))


@named(
    {
        "normal instead of uniform": MLP(2, WIDTH, kernel_init=xavier_normal),
        "Kaiming scale": MLP(2, WIDTH, kernel_init=nn.initializers.variance_scaling(2.0, "fan_in", "uniform")),
        "tanh trunk": MLP(2, WIDTH, activation=nn.tanh),
        "one hidden layer": MLP(2, WIDTH, depth=1),
        "squashed output": SigmoidOutput(2, WIDTH),
    }
)
def test_phi_network_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_phi(wrong)


def check_critics(module):
    params = module.init(jax.random.key(0), X, ACTION)["params"]
    heads = [params[f"MLP_{i}"] for i in range(2)]
    for head in heads:
        for kernel, bias in layers(head):
            check_xavier("normal", kernel, bias)
    assert not np.allclose(layers(heads[0])[0][0], layers(heads[1])[0][0])
    params = with_biases(params)
    xa = np.concatenate([X, ACTION], axis=1)
    expected = np.stack([numpy_mlp(params[f"MLP_{i}"], xa, relu)[:, 0] for i in range(2)])
    np.testing.assert_allclose(module.apply({"params": params}, X, ACTION), expected, atol=1e-5)


class ActionFirst(Critics):
    def __call__(self, x, action):
        return super().__call__(action, x)


class OneCriticTwice(Critics):
    """Both heads share their parameters."""

    @nn.compact
    def __call__(self, x, action):
        q = MLP(1, self.width, kernel_init=xavier_normal, name="MLP_0")(jnp.concatenate([x, action], axis=-1))[..., 0]
        self.param("MLP_1", lambda _: self.get_variable("params", "MLP_0"))
        return jnp.stack([q, q])


def test_critics():
    check_critics(Critics(WIDTH))


@pytest.mark.parametrize("wrong", [ActionFirst, OneCriticTwice])
def test_critics_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_critics(wrong(WIDTH))


SIDE, CHANNELS = 7, 3
TWO_IMAGES = RNG.standard_normal((4, 2 * SIDE * SIDE * CHANNELS + 2)).astype(np.float32)


def image_by_hand(x):
    """The channels of the second image after those of the first; a cell's channels follow each other, then the next
    cell of the row."""
    image = np.zeros((len(x), SIDE, SIDE, 2 * CHANNELS), np.float32)
    for b, row, column, second, channel in np.ndindex(len(x), SIDE, SIDE, 2, CHANNELS):
        place = ((second * SIDE + row) * SIDE + column) * CHANNELS + channel
        image[b, row, column, second * CHANNELS + channel] = x[b, place]
    return image


def check_as_image(convert):
    image, rest = convert(TWO_IMAGES, (SIDE, CHANNELS))
    np.testing.assert_array_equal(image, image_by_hand(TWO_IMAGES))
    np.testing.assert_array_equal(rest, TWO_IMAGES[:, -2:])
    one, _ = convert(np.tile(TWO_IMAGES[None, :, :-100], (5, 1, 1)), (SIDE, CHANNELS))
    np.testing.assert_array_equal(one[3], image_by_hand(TWO_IMAGES)[..., :CHANNELS])


def converted(change):
    """`as_image` with something else done to the images, (b, 2, rows, columns, channels)."""

    def convert(x, image):
        num = x.shape[-1] // (SIDE * SIDE * CHANNELS)
        images, rest = np.split(x, [num * SIDE * SIDE * CHANNELS], axis=-1)
        return change(images.reshape(*x.shape[:-1], num, SIDE, SIDE, CHANNELS)), rest

    return convert


def beside(images):
    return np.concatenate(np.moveaxis(images, -4, 0), axis=-1)


def test_images_of_inputs():
    check_as_image(as_image)
    check_as_image(converted(beside))  # The scaffold of the wrong variants is itself right.


@named(
    {
        "rows for columns": converted(lambda images: beside(np.swapaxes(images, -3, -2))),
        "channels of both in turns": converted(
            lambda images: np.moveaxis(images, -4, -1).reshape(*images.shape[:-4], SIDE, SIDE, -1)
        ),
        "channels first": converted(
            lambda images: beside(
                np.moveaxis(images.reshape(*images.shape[:-3], CHANNELS, SIDE, SIDE), -3, -1),
            )
        ),
        "below each other": converted(lambda images: np.concatenate(np.moveaxis(images, -4, 0), axis=-3)),
    }
)
def test_images_of_inputs_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_as_image(wrong)


def convolve(image, kernel, bias):
    """2 x 2 windows, the kernel (4 channels, out) by rows of the window."""
    b, side, _, channels = image.shape
    out = np.zeros((b, side - 1, side - 1, len(bias))) + bias
    for row, column, i, j in np.ndindex(side - 1, side - 1, 2, 2):
        part = kernel[(2 * i + j) * channels :][:channels]
        out[:, row, column] += image[:, row + i, column + j] @ part
    return out


def numpy_convnet(params, x):
    first, second, third, hidden, last = layers(params)
    image = relu(convolve(image_by_hand(x), *first))
    image = np.stack([image[:, i::2, j::2] for i in range(2) for j in range(2)]).max(axis=0)
    image = relu(convolve(relu(convolve(image, *second)), *third))
    seen = np.concatenate([image.reshape(len(x), -1), x[:, -2:]], axis=1)
    return np.tanh(seen @ hidden[0] + hidden[1]) @ last[0] + last[1]


def check_convnet(module):
    params = module.init(jax.random.key(0), TWO_IMAGES)["params"]
    gains = [2**0.5] * 3 + [5 / 3, 1.0]
    assert [kernel.shape[1] for kernel, _ in layers(params)] == [16, 32, 64, 64, 7]
    for (kernel, bias), gain in zip(layers(params), gains):
        square = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
        np.testing.assert_allclose(square, gain**2 * np.eye(len(square)), atol=1e-4)
        assert (bias == 0).all()
    params = with_biases(params)
    np.testing.assert_allclose(
        module.apply({"params": params}, TWO_IMAGES), numpy_convnet(params, TWO_IMAGES), atol=1e-4
    )


class PlainGain(ConvNet):
    def _convolved(self, image, channels):
        windows = jnp.stack([image[..., i : i - 1 or None, j : j - 1 or None, :] for i in (0, 1) for j in (0, 1)], -2)
        dense = nn.Dense(channels, kernel_init=orthogonal)
        return nn.relu(dense(windows.reshape(*windows.shape[:-2], -1)))


class NoRectifier(ConvNet):
    def _convolved(self, image, channels):
        return -super()._convolved(-image, channels)


class ClockFirst(ConvNet):
    def __call__(self, x):
        return super().__call__(jnp.concatenate([x[:, -2:], x[:, :-2]], axis=1))


def test_convolutions():
    check_convnet(ConvNet(7, 64, (SIDE, CHANNELS)))
    module = ConvPolicy(7, 64, (SIDE, CHANNELS))
    params = module.init(jax.random.key(0), TWO_IMAGES)["params"]
    logits = numpy_convnet(params["ConvNet_0"], TWO_IMAGES)
    np.testing.assert_allclose(module.apply({"params": params}, TWO_IMAGES).logits, logits, atol=1e-4)


@pytest.mark.parametrize("wrong", [PlainGain, NoRectifier, ClockFirst])
def test_convolutions_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_convnet(wrong(7, 64, (SIDE, CHANNELS)))


# --- Models and optimisers --------------------------------------------------------------------------------------------


def check_visible_gradients(model_class):
    """Gradients reach the parameters only where `params=` is written; they always reach the input."""
    model = model_class.create(MLP(1, 4), 1e-3, jax.random.key(0), X[:1])
    hidden, visible = (
        jax.jit(jax.grad(lambda m, p=p: jnp.sum(m(X, params=p(m)))))(model.replace(opt_state=None)).params
        for p in (lambda m: None, lambda m: m.params)
    )
    assert all((g == 0).all() for g in jax.tree.leaves(hidden))
    assert any((g != 0).any() for g in jax.tree.leaves(visible))
    assert (jax.jit(jax.grad(lambda x: jnp.sum(model(x))))(jnp.asarray(X)) != 0).any()


class OpenModel(Model):
    """Gradients reach the parameters unasked."""

    def __call__(self, *inputs, params=None):
        return self.module.apply({"params": self.params if params is None else params}, *inputs)


class SealedModel(Model):
    """Gradients do not pass to the input either: an actor could not learn through it."""

    def __call__(self, *inputs, params=None):
        out = super().__call__(*inputs, params=params)
        return jax.lax.stop_gradient(out) if params is None else out


def test_visible_gradients():
    check_visible_gradients(Model)


@pytest.mark.parametrize("wrong", [OpenModel, SealedModel])
def test_visible_gradients_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_visible_gradients(wrong)


def numpy_adam(value, grads, lr, eps=1e-8, b1=0.9, b2=0.999):
    m = v = 0.0
    for t, g in enumerate(grads, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        value = value - lr * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + eps)
    return value


def check_adam(step):
    """`step(value, lr, slopes)`: the value of a scalar parameter after one step per slope of a linear loss."""
    for slopes in ([1e-3], [1e-6], [0.5, -2.0, 3.0, 1e-4], [0.1] * 10):
        np.testing.assert_allclose(step(2.0, 0.1, slopes), numpy_adam(2.0, slopes, 0.1), rtol=2e-5)


def model_step(value, lr, slopes, **changes):
    model = Model.create(MLP(1, 1, depth=0), lr, jax.random.key(0), jnp.ones((1, 1))).replace(**changes)
    params = {"Dense_0": {"kernel": jnp.full((1, 1), value, jnp.float32), "bias": jnp.zeros(1)}}
    model = model.replace(params=params, opt_state=model.tx.init(params))
    for slope in slopes:
        model, loss, aux = model.minimise(lambda p, s=slope: (s * jnp.sum(p["Dense_0"]["kernel"]), "aux"))
        assert aux == "aux"
    return model.params["Dense_0"]["kernel"][0, 0]


def scalar_step(value, lr, slopes):
    scalar = PositiveScalar.create(math.exp(value), lr)
    for slope in slopes:
        scalar = scalar.minimise(jnp.float32(slope))
    return scalar.log_value


def test_models_and_scalars_step_by_adam():
    check_adam(model_step)
    check_adam(scalar_step)


@named(
    {
        "clipped gradients": optax.chain(optax.clip(1.0), optax.adam(0.1)),
        "weight decay": optax.adamw(0.1, weight_decay=1e-2),
        "larger epsilon": optax.adam(0.1, eps=1e-5),
        "other betas": optax.adam(0.1, b1=0.95),
        "plain gradient descent": optax.sgd(0.1),
        "ascent": optax.adam(-0.1),
    }
)
def test_adam_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_adam(partial(model_step, tx=wrong))


def check_first_dual_step(scalar_class):
    """The first step moves the logarithm by lr |g| / (|g| + 1e-8) (sheet 7.2), against the slope."""
    for initial, log_initial in ((30.0, 3.4012), (3000.0, 8.0064), (0.01, -4.6052)):
        scalar = scalar_class.create(initial, 1e-2)
        assert abs(float(scalar.log_value) - log_initial) < 1e-4
        for slope, share in ((1e-3, 1.0), (1e-6, 0.990), (-0.3, -1.0)):
            step = scalar.minimise(jnp.float32(slope)).log_value - scalar.log_value
            np.testing.assert_allclose(step, -1e-2 * share, rtol=1e-3)
        assert scalar.minimise(jnp.float32(0.0)).log_value == scalar.log_value
    for slope in (1e6, -1e6):
        assert scalar.minimise(jnp.float32(slope)).value > 0


class ValueInsteadOfLog(PositiveScalar):
    """The number itself is the parameter."""

    def minimise(self, slope):
        stepped = super().minimise(slope)
        value = self.value + (stepped.log_value - self.log_value)
        return stepped.replace(log_value=jnp.log(value))


class Ascends(PositiveScalar):
    def minimise(self, slope):
        return super().minimise(-slope)


class SlopeTimesValue(PositiveScalar):
    """The loss is value * slope, differentiated by the logarithm."""

    def minimise(self, slope):
        return super().minimise(self.value * slope)


def test_first_dual_step():
    check_first_dual_step(PositiveScalar)


@pytest.mark.parametrize("wrong", [ValueInsteadOfLog, Ascends, SlopeTimesValue])
def test_first_dual_step_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_first_dual_step(wrong)


def check_soft_update(average):
    target, online = {"w": jnp.float32([1.0, 2.0])}, {"w": jnp.float32([3.0, -4.0])}
    np.testing.assert_array_equal(average(target, online, 0.0)["w"], target["w"])
    np.testing.assert_array_equal(average(target, online, 1.0)["w"], online["w"])
    np.testing.assert_allclose(average(target, online, 0.005)["w"], [1.01, 1.97], rtol=1e-6)


def test_soft_update():
    check_soft_update(soft_update)


@named(
    {
        "shares swapped": lambda t, o, tau: soft_update(t, o, 1 - tau),
        "hard copy": lambda t, o, tau: o,
        "not a convex mean": lambda t, o, tau: jax.tree.map(lambda a, b: a + tau * b, t, o),
    }
)
def test_soft_update_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_soft_update(wrong)


def check_normalizer(normalise):
    mean, std = np.float32([1.0, -2.0]), np.float32([0.5, 4.0])
    one = normalise(mean, std, np.float32([2.0, 6.0]))
    np.testing.assert_allclose(one, [2.0, 2.0], rtol=1e-6)
    many = normalise(mean, std, np.full((3, 4, 2), [2.0, 6.0]))  # float64, as simulators give it
    assert many.dtype == jnp.float32
    np.testing.assert_allclose(many, np.full((3, 4, 2), 2.0), rtol=1e-6)
    # A coordinate that never moved stays finite, and is not clipped.
    np.testing.assert_allclose(normalise(mean, np.float32([0.0, 1.0]), np.float32([1.5, -2.0])), [5e7, 0.0], rtol=1e-5)


def test_normalizer():
    check_normalizer(lambda mean, std, obs: Normalizer(jnp.asarray(mean), jnp.asarray(std))(obs))
    obs = np.float32([[1.0, -3.0]])
    np.testing.assert_allclose(Normalizer.identity(2)(obs), obs, rtol=1e-6)


@named(
    {
        "variance instead of std": lambda mean, std, obs: jnp.float32((obs - mean) / (std**2 + 1e-8)),
        "no guard": lambda mean, std, obs: jnp.float32((obs - mean) / np.maximum(std, 1e-30)),
        "clipped": lambda mean, std, obs: jnp.clip(jnp.float32((obs - mean) / (std + 1e-8)), -10, 10),
    }
)
def test_normalizer_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_normalizer(wrong)
