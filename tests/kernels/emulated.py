"""AMX and AVX512-VNNI on any CPU, for tests: a plugin, ``python -m pytest -p tests.kernels.emulated -k amx``.

The kernels are those of the package. Only the instructions that a CPU may lack are emitted as plain IR for the host:
``Amx.op``, and what ``Avx512Vnni`` declares. A tile is 1 KiB on the stack of the function that uses it, so tiles live
within one function, as those of the kernels do. Each function begins with tiles of 16 rows x 64 bytes, and may
configure others. A product of tiles whose shapes do not fit ends the process, as it does on a CPU.

The whole process works so from the moment that this is imported. Its kernels have folders of the cache of their own,
so they never meet real ones of the same names.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastq.kernels.dot import amx, avx512vnni
from fastq.kernels.table import ISAS
from fastq.machine.ir import HOST, I8, I16, I32, I64, VOID, declare, filled, load_vector, loop, splat, store_vector
from tests.kernels.emulation import begin, function

ROWS, ROW, TILE = 16, 64, 1024
COLUMNS_AT, ROWS_AT = 16, 48  # of a configuration: bytes per row (16 bits each), rows (8 bits)
BYTES, LANES = ir.VectorType(I8, ROW), ir.VectorType(I32, 16)
P8 = I8.as_pointer()


def _dot(b: ir.IRBuilder, acc: Any, unsigned: Any, signed: Any, width: int) -> Any:
    """``acc`` plus the products of the unsigned and the signed parts, of so many bits, of each lane."""
    top = filled(acc.type, 32 - width)
    for shift in range(0, 32, width):
        left = b.ashr(b.shl(signed, filled(acc.type, 32 - width - shift)), top)
        right = b.lshr(b.shl(unsigned, filled(acc.type, 32 - width - shift)), top)
        acc = b.add(acc, b.mul(left, right))
    return acc


def _vpdpbusd(b: ir.IRBuilder, acc: Any, right: Any, left: Any) -> Any:
    return _dot(b, acc, right, left, 8)


def _vpdpwssd(b: ir.IRBuilder, acc: Any, x: Any, y: Any) -> Any:
    half = filled(acc.type, 16)
    for part in (lambda v: b.ashr(b.shl(v, half), half), lambda v: b.ashr(v, half)):
        acc = b.add(acc, b.mul(part(x), part(y)))
    return acc


_VECTOR = {"llvm.x86.avx512.vpdpbusd.512": _vpdpbusd, "llvm.x86.avx512.vpdpwssd.512": _vpdpwssd}


def _declare(b: ir.IRBuilder, name: str, result: ir.Type, args: list[ir.Type]) -> Any:
    return function(b, name, result, args, _VECTOR[name])


def _at(b: ir.IRBuilder, config: Any, base: int, tile: Any, kind: ir.Type) -> Any:
    """An entry of the configuration."""
    place = b.gep(config, [b.add(I64(base), b.mul(tile, I64(kind.width // 8)))])
    return b.zext(b.load(b.bitcast(place, kind.as_pointer()), align=1), I64)


def _zero(b: ir.IRBuilder, config: Any, tiles: Any, t: Any) -> None:
    tile = b.gep(tiles, [b.mul(t, I64(TILE))])
    for row in range(ROWS):
        store_vector(b, ir.Constant(BYTES, None), b.gep(tile, [I64(row * ROW)]))


def _mover(loads: bool) -> Any:
    def move(b, config, tiles, t, memory, stride):
        if loads:
            _zero(b, config, tiles, t)
        tile, size = b.gep(tiles, [b.mul(t, I64(TILE))]), _at(b, config, COLUMNS_AT, t, I16)

        def one_row(r, _):
            places = b.gep(memory, [b.mul(r, stride)]), b.gep(tile, [b.mul(r, I64(ROW))])
            source, target = places if loads else places[::-1]

            def one_byte(i, _):
                b.store(b.load(b.gep(source, [i])), b.gep(target, [i]))
                return []

            with b.if_else(b.icmp_signed("==", size, I64(ROW))) as (whole, part):
                with whole:
                    store_vector(b, load_vector(b, source, BYTES), target)
                with part:
                    loop(b, I64(0), size, 1, [], one_byte)
            return []

        loop(b, I64(0), _at(b, config, ROWS_AT, t, I8), 1, [], one_row)

    return move


def _tdpbsud(b: ir.IRBuilder, config: Any, tiles: Any, *numbers: Any) -> None:
    acc, left, right = (b.gep(tiles, [b.mul(t, I64(TILE))]) for t in numbers)
    rows, sizes = (
        [_at(b, config, base, t, kind) for t in numbers] for base, kind in ((ROWS_AT, I8), (COLUMNS_AT, I16))
    )
    fits = [(rows[0], rows[1]), (sizes[0], sizes[2]), (b.mul(rows[2], I64(4)), sizes[1])]
    for x, y in fits:
        with b.if_then(b.icmp_signed("!=", x, y)):
            b.call(declare(b, "llvm.trap", VOID, []), [])

    def one_step(s, _):
        codes = load_vector(b, b.gep(right, [b.mul(s, I64(ROW))]), LANES)

        def one_row(r, _):
            place = b.gep(acc, [b.mul(r, I64(ROW))])
            word = load_vector(b, b.gep(left, [b.add(b.mul(r, I64(ROW)), b.mul(s, I64(4)))]), I32)
            store_vector(b, _dot(b, load_vector(b, place, LANES), codes, splat(b, word, 16), 8), place)
            return []

        loop(b, I64(0), rows[0], 1, [], one_row)
        return []

    loop(b, I64(0), rows[2], 1, [], one_step)


def _ldtilecfg(b: ir.IRBuilder, config: Any, tiles: Any, memory: Any) -> None:
    store_vector(b, load_vector(b, memory, BYTES), config)


_OPS = {
    "tilezero": _zero,
    "tileloadd64": _mover(True),
    "tilestored64": _mover(False),
    "tdpbsud": _tdpbsud,
    "ldtilecfg": _ldtilecfg,
    "tilerelease": lambda b, config, tiles: None,
}
_WHOLE = bytes([1]).ljust(COLUMNS_AT, b"\0") + bytes([ROW, 0] * 8).ljust(32, b"\0") + bytes([ROWS] * 8).ljust(16, b"\0")


def _state(b: ir.IRBuilder) -> tuple[Any, Any]:
    """The configuration and the tiles of the function that is being emitted: once on its stack, whatever it loops."""
    function = b.function
    if not hasattr(function, "emulated"):
        with b.goto_entry_block():
            config, tiles = b.alloca(BYTES), b.alloca(ir.ArrayType(I8, 8 * TILE))
            b.store(ir.Constant(BYTES, list(_WHOLE)), config)
            function.emulated = b.bitcast(config, P8), b.bitcast(tiles, P8)
    return function.emulated


def _op(self: Any, b: ir.IRBuilder, name: str, *args: Any) -> None:
    args = (*_state(b), *(b.zext(a, I64) if a.type == I8 else a for a in args))
    b.call(function(b, name, VOID, [a.type for a in args], _OPS[name]), args)


amx.Amx.op, amx.Amx.target = _op, HOST  # type: ignore[method-assign]
avx512vnni.declare, avx512vnni.Avx512Vnni.target = _declare, HOST  # type: ignore[attr-defined]
begin(set(ISAS["amx"]), __file__)
