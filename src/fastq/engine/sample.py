"""Codes here and there in a store, for a look at a large array: what a picture needs must not cost more than that."""

from __future__ import annotations

from math import lcm

from fastq.engine import reference
from fastq.engine.operands import Array, Right
from fastq.engine.store import Store
from fastq.layout.tiles import BLOCK, DEPTH, ceil_div
from fastq.pictures.distribution import LIMIT, places


def sample(store: Store, limit: int = LIMIT) -> list[Array]:
    """Parts of the codes, about `limit` of them (up to four times as many, where these lie in whole tiles).

    Packed codes stay packed. The parts are unpacked in NumPy, since for a look no kernel should be compiled.
    """
    form = store._form
    if form.codes is not None:
        return [form.codes[place] for place in places(form.codes.shape, limit)]
    rights = list(form.packed.values())
    chosen = rights[:: ceil_div(len(rights), 8)]
    return [reference.unpack(part, store.limits) for right in chosen for part in _parts(right, limit // len(chosen))]


def _parts(right: Right, limit: int) -> list[Right]:
    """Some tiles of a packed matrix, here and there; all tiles along K where gaps separate its segments."""
    tiles, blocks = right.k_segments.tiles, right.width // BLOCK
    whole = lcm(DEPTH, right.group_size or 1) // DEPTH if right.k_segments.gapless else tiles  # that stay together
    if DEPTH * BLOCK * min(whole, tiles) > 4 * limit:
        return []
    shape = ceil_div(tiles, whole), blocks
    found = []
    for down, across in places(shape, max(1, limit // (DEPTH * BLOCK * min(whole, tiles)))):
        found.append(right.part(slice(down.start * whole, min(down.stop * whole, tiles)), across))
    return found
