"""The jobs of the kernels: what each of them is told (see :mod:`fastq.machine.job`)."""

from __future__ import annotations

from fastq.machine.job import INT, job

# Elements that the kernels of floats take at a time, on every CPU: LLVM makes of vectors what the host has. Sums are
# added up in so many lanes, which makes it part of their results.
LANES = 16

# Bits of a status.
NOT_FINITE, SPAN_OVERFLOW, RAISED = 1, 2, 4  # RAISED: a user's function raised an exception

MatmulJob = job(
    "MatmulJob",
    """One product of packed operands; the equation is in :mod:`fastq.scheme`.

    K is cut into `segments` of `segment_steps` steps (the last may be shorter) over which parameters are constant.
    Row parameters are ``[m][row_groups]``, column parameters ``[blocks][col_groups][16]``, for `columns` columns: n
    rounded up to whole blocks of 16. Sums are per segment: ``row_sum[m][segments]``, ``col_sum[segments][columns]``.
    """,
    m=INT,
    n=INT,
    columns=INT,
    steps=INT,
    segments=INT,
    segment_steps=INT,
    segment_k=INT,  # k per segment
    last_k=INT,  # k in the last segment
    row_chunk=INT,  # rows per ticket
    block_chunk=INT,  # column blocks per ticket
    left_kernel="u8*",  # by which a ticket brings its rows into tiles; null where they are there
    left_job="u8*",
    room="u8*",  # by thread, for output that goes through it: room_bytes each
    room_bytes=INT,
    room_pitch=INT,  # elements from row to row of a room; 0: output goes where it belongs
    left="u8*",
    right="u8*",
    groups="u8*",  # factors and shifts of grouped codes, see fastq.layout.tiles
    group_pitch=INT,  # bytes of them per block of columns
    group_quarters=INT,  # 16 k each, per group
    scratch="u8*",
    scratch_bytes=INT,  # per thread
    arrivals=INT,  # threads that have begun
    out="u8*",
    out_pitch=INT,  # elements from row to row
    row_groups=INT,
    row_scale="u8*",  # of the output's float type
    row_zero="i32*",
    row_sum="i32*",
    row_offset="u8*",  # null without
    row_outside=INT,  # whether row_scale multiplies the sum of the segments rather than each of them
    col_groups=INT,
    col_scale="u8*",
    zero_groups=INT,
    uniform=INT,  # whether all columns have the same zero point
    col_zero="i32*",
    col_sum="i32*",  # null where the left operand has no zero points
    col_offset="u8*",  # null where neither operand has offsets
    col_term="u8*",  # [blocks][segments][16]: col_scale * sum(code - zero) + k * col_offset
    col_outside=INT,  # as row_outside; col_scale is 1 in col_term then
    fast=INT,  # one segment, a uniform zero point on the right, none on the left, no offsets
    streamed=INT,  # output of the fast path is aligned to cache lines and goes past the cache
    bias="u8*",  # may be null
    top_k=INT,  # of products of which the best k of each row are kept; see fastq.kernels.epilogue.top
    top_rows=INT,
    top_smallest=INT,  # whether the smallest are the best
    top_values="u8*",  # [threads][top_rows][top_k], of the type that the product is computed in
    top_indices="i64*",  # the same
    top_counts="i64*",  # [threads][top_rows], how many there are
    top_limits="u8*",  # the same: the worst of top_k values, or the lowest that there is
    keep="u16*",  # a bit per column, 16 each: whether it may be among the best
)

TopJob = job(
    "TopJob",
    "Join and sort what threads have kept of `rows` rows; arrays as in :class:`MatmulJob`.",
    rows=INT,
    k=INT,
    threads=INT,
    smallest=INT,
    values="u8*",
    indices="i64*",
    counts="i64*",
)

LEFT_ROWS = 8  # rows of a left operand per ticket

LeftJob = job(
    "LeftJob",
    """Bring the left operand into row tiles; floats are quantized by row on the way (symmetric, max|x| scale).

    Segments as in :class:`MatmulJob`; `status` becomes 1 if some element is not finite. A row has one scale, or one per
    segment, as `groups` says. Codes of two planes (high and low bytes) are two rows of tiles and sums. Balanced floats
    are first multiplied by ``balance[k]``, and each `block` of them rotated (:mod:`fastq.kernels.pack.rotation`); a
    ticket's rows of what comes of it lie in its thread's room.
    """,
    m=INT,
    k=INT,
    x="u8*",
    pitch=INT,  # elements from row to row
    tiles="u8*",
    steps=INT,
    segments=INT,
    segment_steps=INT,
    segment_k=INT,
    flip=INT,  # 0x80 where codes are unsigned
    high=INT,  # codes go from -high to high
    groups=INT,  # scales per row: 1, or one per segment
    scale="u8*",
    row_sum="i32*",
    balance="u8*",  # of the type that x is computed in, as what is in the room
    block=INT,  # 1: no rotation
    room="u8*",  # [threads][LEFT_ROWS][room_pitch]
    room_pitch=INT,
    arrivals=INT,  # threads that have begun
)

FIND, CHOOSE, WRITE = 1, 2, 4  # bits of QuantizeJob.work

QuantizeJob = job(
    "QuantizeJob",
    """Quantize ``x[outer][groups][n][inner]``, one set of parameters per outer, group and inner index.

    Element (o, g, k, j) of x lies ``o * outer_pitch + g * group_pitch + k * inner + j`` elements from its start, in the
    same way for `codes`; its parameters lie ``o * param_pitch + g * inner + j`` from theirs. `status`: NOT_FINITE, or
    SPAN_OVERFLOW of affine data.
    """,
    x="u8*",
    codes="u8*",
    outer=INT,
    groups=INT,
    n=INT,
    inner=INT,
    outer_pitch=INT,
    group_pitch=INT,
    param_pitch=INT,
    group_param=INT,  # pitch of parameters from group to group: inner, or 0 where one set serves all
    scale="u8*",
    zero="u8*",  # as floats
    offset="u8*",
    minimum="u8*",
    maximum="u8*",
    band=INT,  # rows of a band (columns), or runs per ticket (rows)
    low=INT,
    high=INT,
    scheme=INT,  # 0 symmetric, 1 asymmetric, 2 affine
    work=INT,  # FIND extremes, CHOOSE parameters, WRITE codes
)

# What every kernel that writes right tiles is told.
_RIGHT = {
    "k": INT,
    "n": INT,
    "columns": INT,
    "strip": INT,  # blocks of columns per ticket
    "depth": INT,  # tiles along K per ticket; all of them where there are several segments
    "tiles": "u8*",
    "steps": INT,
    "segments": INT,
    "segment_steps": INT,
    "segment_k": INT,
    "col_sum": "i32*",
}

RightJob = job(
    "RightJob",
    """Pack codes into right tiles: ``codes[k * k_pitch + n * n_pitch]`` (bytes), shifted to be unsigned.

    Segments as in :class:`MatmulJob`; sums of the shifted codes go to ``col_sum[segments][columns]``.
    """,
    codes="u8*",
    k_pitch=INT,
    n_pitch=INT,
    shift=INT,  # added to each code, modulo 256
    **_RIGHT,
)

RightFloatsJob = job(
    "RightFloatsJob",
    """Quantize floats by column (symmetric, max|x| scale) into right tiles; otherwise as :class:`RightJob`.

    Element (k, n) of x lies ``k * k_pitch + n * n_pitch`` elements from its start; one pitch is 1.
    """,
    x="u8*",
    k_pitch=INT,
    n_pitch=INT,
    low=INT,  # the lowest code, relative to which codes are packed
    high=INT,
    scale="u8*",  # [n]
    inverse="u8*",  # [n], their reciprocals; NaN where that would not do
    **_RIGHT,
)

UnpackJob = job(
    "UnpackJob",
    """Codes of gapless right tiles: ``out[i * pitch + k] = u[k, columns[i]] - less``, or ``out[k * pitch + i]`` of all.

    Where there are `groups`, symmetric codes under a negative scale are mirrored back, and chosen columns come with the
    scales of their groups.
    """,
    tiles="u8*",
    k=INT,
    columns="i64*",  # null for all
    count=INT,  # of columns
    band=INT,  # columns per ticket, where they are chosen
    column_groups=INT,  # groups per column
    group_scale="i8*",  # out: [count][column_groups]
    group_zero="u8*",  # out: the zero points of asymmetric codes, likewise; null of symmetric ones
    less=INT,  # what was added to each code
    groups="u8*",  # factors and shifts, or null
    group_pitch=INT,  # bytes of them per block of columns
    group_quarters=INT,  # 16 k each, per group
    zero=INT,  # the unsigned code of 0 under a positive scale
    out="u8*",
    pitch=INT,
)

SearchJob = job(
    "SearchJob",
    "Search parameters of `runs` runs of `n` floats each, one after the other; see fastq.kernels.quantize.descent.",
    x="u8*",
    weights="u8*",  # of squared errors, [weight_runs][n]; runs take them in turns
    weight_runs=INT,
    runs=INT,
    n=INT,
    factor="u8*",  # powers of two; 0 leaves a run as it is
    minimum="u8*",
    maximum="u8*",
    scale="u8*",
    zero="u8*",
    offset="u8*",
    low=INT,
    high=INT,
    scheme=INT,
)

SharedJob = job(
    "SharedJob",
    """Choose integer scales of groups, and the scale they share; see :mod:`fastq.kernels.quantize.descent`.

    The data are ``x[columns][k]``; parameters by group are ``[columns][groups]``, all of them floats.
    """,
    x="u8*",
    weights="u8*",  # of squared errors, by k
    columns=INT,
    k=INT,
    size=INT,  # k per group
    groups=INT,
    factor="u8*",  # powers of two, by column
    shared_scale="u8*",  # in: the smallest scale that cuts off nothing; out: the one chosen
    scale="u8*",  # the best float scale of each group by itself; overwritten
    zero="u8*",  # and zero point
    group_scale="u8*",  # out: integer scales
    group_zero="u8*",  # out: zero points under them
    low=INT,
    high=INT,
    limit=INT,  # the largest integer scale
    scheme=INT,
)

# Of a CompensateJob: rows at most, and what columns come in multiples of; so many stay in the first-level cache.
COMPENSATED_ROWS, COMPENSATED_COLUMNS = 128, 32

CompensateJob = job(
    "CompensateJob",
    """Round ``target[rows][n]`` to codes, row after row, under each of `candidates` sets of parameters.

    README.md has the equation. Parameters of candidate c, row i and column j lie ``c * candidate_pitch + i * row_pitch
    + j`` elements from their start; `codes` (may be null) are those of the last candidate. n is a multiple of 32.
    """,
    rows=INT,
    n=INT,
    candidates=INT,
    target="u8*",
    carry="u8*",  # [rows][rows]
    weight="u8*",
    scale="u8*",
    zero="u8*",  # as floats
    offset="u8*",
    candidate_pitch=INT,
    row_pitch=INT,  # n, or 0 where all rows share their parameters
    low=INT,
    high=INT,
    loss="u8*",  # [candidates][n]
    codes="u8*",  # [rows][n]
)

MultiplyJob = job(
    "MultiplyJob",
    "`rounds` steps of a register block per ticket; see :mod:`fastq.kernels.dot.peak`.",
    tickets=INT,
    rounds=INT,
    left="u8*",
    right="u8*",
    sums="i32*",  # [tickets][rows][columns]
)

ReadJob = job(
    "ReadJob",
    "Add up `words` 64-bit integers per ticket; see :mod:`fastq.kernels.dot.peak`.",
    tickets=INT,
    words=INT,
    data="i64*",
    sums="i64*",
)
