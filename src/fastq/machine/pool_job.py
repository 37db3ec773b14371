"""The gate of :mod:`fastq.machine.pool`, which Python and the kernels of the pool share: one 64-bit word.

    bits 0-11 workers inside | bits 12-23 workers that may still enter | bit 24 closed | bits 32-63 number of the job

A worker enters by a compare-and-swap on the whole word, so it can neither enter a job that was closed or replaced in
the meantime nor enter one twice.
"""

from __future__ import annotations

from fastq.machine.job import INT, job

INSIDE, PERMIT, CLOSED = 1, 1 << 12, 1 << 24

PoolJob = job(
    "CrewJob",
    "A worker's wait for work (`seen`: the last job it knows of), or a leader's call of `function(argument)`.",
    gate="i64*",  # [gate, function, argument]
    seen=INT,
    spins=INT,
    permits=INT,
    function="u8*",
    argument="u8*",
)
