"""What attacks multiply: arrays of any kind of numbers in any layout, and quantized arrays of any form."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt

import fastq as fq

Array = npt.NDArray[Any]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# Around the edges of tiles (64 x 16), steps (4) and register blocks (up to 32 rows, 48 columns).
EDGES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 47, 48, 49, 63, 64, 65, 66, 70)
LONG = (127, 128, 129, 200, 255, 257, 511, 512, 513, 600, 1025, 2049)
GROUPS = (1, 2, 3, 4, 5, 8, 15, 16, 16, 32, 32, 48, 64, 64, 80, 128, 1000)
FAMILY = 50  # seeds in a row whose programs share kernels, since one takes a second to compile


class Theme(NamedTuple):
    """What programs of a family have in common."""

    bits: tuple[int, int]
    inputs: tuple[np.dtype[Any], ...]
    activation: str
    wanted: str  # another type of results than their natural one

    @classmethod
    def of(cls, family: int) -> Theme:
        """That of a family; the first one takes kernels that other tests take too."""
        if family == 0:
            return cls((8, 3), (np.dtype("f4"),), "relu", "float32")
        r = np.random.default_rng([family, 1])
        narrow = ("f4", "f4", "f2", "i2", "u2", BFLOAT16), ("float16", "float64")
        wide = ("f4", "f8", "f8", "i4", "i8", "f2"), ("float16", "float32")
        inputs, wanted = wide if r.random() < 0.25 else narrow
        widths = sorted(int(b) for b in r.choice(np.arange(2, 9), 2, replace=False))
        activation = ("relu", "gelu", "silu")[r.integers(3)]
        return cls((widths[0], widths[1]), tuple(map(np.dtype, inputs)), activation, wanted[r.integers(2)])


class Draw:
    """Random choices from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 0])
        self.theme = Theme.of(seed // FAMILY)

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def one_of(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def below(self, n: int) -> int:
        return int(self.rng.integers(n))

    def length(self, long: bool = False) -> int:
        """Of an axis; sometimes 0, and of K sometimes some hundreds."""
        if self.chance(0.02):
            return 0
        if long and self.chance(0.08):
            return int(self.one_of(*LONG))
        return int(self.one_of(*EDGES)) if self.chance(0.6) else 1 + self.below(70)

    # Arrays

    def floats(self, shape: tuple[int, ...]) -> Array:
        """Finite numbers of one of the theme's types, near its ends too."""
        dtype: np.dtype[Any] = self.one_of(*self.theme.inputs)
        x = self.rng.standard_normal(shape)
        whole = dtype.kind in "iu"
        info: Any = ml_dtypes.finfo("float32" if whole else dtype)
        largest, tiniest = (1e4, 1.0) if whole else (float(info.max), float(info.smallest_subnormal))
        kind = self.one_of(
            "plain", "plain", "plain", "scaled", "huge", "tiny", "zero", "ties", "const", "outlier", "mixed"
        )
        if kind == "scaled":
            x = x * 10.0 ** self.rng.uniform(-6, 6)
        elif kind == "huge":
            x = np.clip(x / 3, -1, 1) * largest
        elif kind == "tiny":
            x = x * 100 * tiniest
        elif kind == "zero":
            x = np.where(self.rng.random(shape) < 0.5, -0.0, 0.0)
        elif kind == "ties":
            x = np.rint(x * 20) / 2
        elif kind == "const":
            x = np.full(shape, self.rng.standard_normal())
        elif kind == "outlier" and x.size:
            x.flat[self.below(x.size)] = 1e4
        elif kind == "mixed":
            x = x * 10.0 ** self.rng.integers(-8, 8, shape)
        if whole:
            x = np.clip(x * 100, 0 if dtype.kind == "u" else -3e4, 3e4)
        return self.laid_out(np.clip(x, -largest, largest).astype(dtype))

    def integers(self, shape: tuple[int, ...], dtype: str) -> Array:
        """8-bit integers: of the full range, or all at one end of it, or near 0."""
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        ends = self.one_of((low, high), (low, high), (low, low), (high, high), (max(low, -1), 1))
        return self.laid_out(self.rng.integers(ends[0], ends[1] + 1, shape).astype(dtype))

    def laid_out(self, x: Array) -> Array:
        """The same numbers in another layout in memory."""
        kind = self.one_of("rows", "rows", "rows", "padded", "behind", "columns", "up", "back", "every second",
                           "swapped", "read-only", "broadcast", "odd")  # fmt: skip
        if x.ndim < 2 or not x.size:
            return x
        n = x.shape[-1]
        if kind == "padded":
            return np.concatenate([x, x[..., :3]], axis=-1)[..., :n]
        if kind == "behind":
            return np.concatenate([x[..., :3], x], axis=-1)[..., -n:]
        if kind == "columns":
            return x.T.copy().T
        if kind == "up":
            return x[..., ::-1, :].copy()[..., ::-1, :]
        if kind == "back":
            return x[..., ::-1].copy()[..., ::-1]
        if kind == "every second":
            return np.repeat(x, 2, axis=-1)[..., ::2]
        if kind == "swapped" and x.dtype != BFLOAT16:
            return x.astype(x.dtype.newbyteorder())
        if kind == "read-only":
            x.flags.writeable = False
        if kind == "broadcast":
            return np.broadcast_to(x[..., :1, :].copy(), x.shape)
        if kind == "odd" and x.dtype != BFLOAT16:
            odd = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
            odd[...] = x
            return odd
        return x

    # Quantized arrays

    def form(self, shape: tuple[int, ...], along: int) -> dict[str, Any]:
        """Arguments of ``fq.quantize``; `along` is the axis that a product sums over."""
        axis = self.one_of(None, along, along, along, along, along, along, self.below(len(shape)))
        form = {"bits": self.one_of(*self.theme.bits), "scheme": self.one_of("symmetric", "asymmetric", "affine")}
        form["axis"] = axis
        if axis is not None:
            n = shape[axis]
            if self.chance(0.45):
                form["group_size"] = self.one_of(*GROUPS)
                form["group_scale"] = self.one_of(None, None, None, "integer", "float")
            if self.chance(0.15):
                form["balance"] = np.exp(self.rng.standard_normal(n)).astype(np.float32)
            form["rotate"] = bool(n and n % 16 == 0 and self.chance(0.3))
        if self.chance(0.2):
            form["method"] = self.one_of("mse", "percentile")
        elif self.chance(0.05) and axis is not None and len(shape) == 2 and 0 not in shape:
            form["method"] = fq.Gptq(sweeps=self.below(2), activation_order=self.chance(0.5))
            form["calibration"] = self.rng.standard_normal((40, shape[axis])).astype(np.float32)
        elif self.chance(0.15) and form["scheme"] != "affine":
            form["scale"] = float(np.exp(self.rng.uniform(-4, 1)))
            if form["scheme"] == "asymmetric":
                form["zero_point"] = self.one_of(0, 2 ** form["bits"] - 1, self.below(2 ** form["bits"]))
            elif self.chance(0.3):
                form["scale"] *= -1
            form.pop("group_scale", None)
        return form

    def quantized(self, shape: tuple[int, ...], along: int) -> fq.QArray:
        """A quantized array of this shape; ValueError where fastq refuses numbers of this form."""
        x = self.floats(shape)
        form = self.form(shape, along)
        return fq.quantize(x, form.pop("bits"), **form)


# What they stand for


class Exact(NamedTuple):
    """Numbers in float64, and the magnitudes that were added up for each."""

    values: Array
    magnitudes: Array


def exact(x: Array | fq.QArray) -> Exact:
    """What an array or a quantized array stands for, from its codes and parameters."""
    if not isinstance(x, fq.QArray):
        values = np.asarray(x).astype(np.float64)
        return Exact(values, np.abs(values))

    def whole(parameter: Array | None) -> Any:
        if parameter is None:
            return 0.0
        if x.group_size is not None and x.axis is not None and parameter.shape[x.axis] > 1:
            parameter = np.take(parameter, np.arange(x.shape[x.axis]) // x.group_size, axis=x.axis)
        return parameter.astype(np.float64)

    with np.errstate(all="ignore"):
        scale = whole(x.scale) if x.axis_scale is None else whole(x.axis_scale) * whole(x.group_scale)
        values = scale * (x.codes.astype(np.float64) - whole(x.zero_point))
        magnitudes = np.abs(values) + np.abs(whole(x.offset))
        values = values + whole(x.offset)
        if x.rotation > 1:
            turn = _hadamard(x.rotation)
            values, magnitudes = (_in_blocks(v, t, x.axis) for v, t in ((values, turn), (magnitudes, np.abs(turn))))
        if x.balance is not None:
            balance = x.balance.astype(np.float64)
            values, magnitudes = values * balance, magnitudes * balance
    return Exact(values, magnitudes)


def _hadamard(n: int) -> Array:
    """The Hadamard matrix of n rows, a power of two."""
    matrix = np.ones((1, 1))
    while len(matrix) < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def _in_blocks(values: Array, matrix: Array, axis: int | None) -> Array:
    """Blocks along an axis, times a matrix."""
    assert axis is not None
    lines = np.moveaxis(values, axis, -1)
    blocks = lines.reshape(*lines.shape[:-1], lines.shape[-1] // len(matrix), len(matrix))
    return np.moveaxis((blocks @ matrix).reshape(lines.shape), -1, axis)
