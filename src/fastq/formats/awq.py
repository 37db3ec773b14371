"""AWQ's layout "gemm" (AutoAWQ 0.2.9: awq/modules/linear/gemm.py, utils/packing_utils.py), 4 bits.

    qweight  int32  [K, N / 8]   eight codes of a row per word, those of columns 0, 2, 4, 6, 1, 3, 5, 7, lowest first
    qzeros   int32  [G, N / 8]   zero points, packed likewise
    scales   floats [G, N]       x = scale * (code - zero_point); G groups along K

The layouts of other kernels (gemv, gemv_fast, marlin, that of llm-awq) are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastq.errors import shown
from fastq.formats.binary import Array
from fastq.formats.entries import Entry
from fastq.formats.module import FLOATS, WORDS, Module, described
from fastq.qarray.array import QArray
from fastq.qarray.build import from_parts

NAME = "AWQ"
PARTS = ("qweight", "qzeros", "scales")
GEMM = ("gemm", "exllama", "exllamav2", "ipex")  # the layout in files; kernels of these names repack it
BITS = 4
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def entry(module: Module, config: Mapping[str, Any]) -> Entry:
    """The weight of a module, as its shapes and the configuration describe it."""
    version = next((v for key in ("version", "checkpoint_format", "format") if (v := config.get(key))), "gemm")
    if not isinstance(version, str) or version.lower() not in GEMM:
        module.fail(f"of AWQ's layouts, fastq reads gemm; got {shown(version)}")
    bits = module.integer(config, "bits", "w_bit")
    if bits not in (None, BITS):
        module.fail(f"AWQ has 4 bits, got bits={shown(bits)}")
    length, words = module.shape("qweight", WORDS, 2)
    groups, columns = module.shape("scales", FLOATS, 2)
    zeros = module.shape("qzeros", WORDS, 2)
    if columns != 8 * words or zeros != (groups, words) or length % groups:
        module.fail(
            "qweight [K, N / 8], qzeros [G, N / 8] and scales [G, N] must agree, with K a multiple of G; got shapes "
            f"{(length, words)}, {zeros} and {(groups, columns)}"
        )
    size = module.group_size(module.integer(config, "group_size", "q_group_size"), length, groups)
    return module.entry((columns, length), described(BITS, groups, size), lambda: _read(module, size))


def _read(module: Module, size: int) -> QArray:
    codes, zeros = (_columns(module.read(part)) for part in ("qweight", "qzeros"))
    group = size if zeros.shape[1] > 1 else None
    return from_parts(codes, module.read("scales").T, bits=BITS, zero_point=zeros, group_size=group)


def _columns(words: Array) -> Array:
    """The codes in words of eight columns, transposed: a row of codes for each column."""
    lines = words.T.astype(np.uint32, order="C")
    codes = np.empty((len(lines), 8, lines.shape[1]), np.uint8)
    for place, column in enumerate(ORDER):
        codes[:, column] = (lines >> np.uint32(BITS * place)) & np.uint32(2**BITS - 1)
    return codes.reshape(-1, lines.shape[1])
