"""NumPy's own products and solvers, as they were when fastq and NumPy were imported.

A program may say ``np.matmul = fq.matmul``. What fastq leaves to NumPy would then come back to fastq, without end, and
what is asked of a ufunc would be asked of a function. So no other file says ``np.matmul``, ``np.dot`` or the like
(tests/test_numpys.py holds it). ``@`` between plain arrays needs no such care: it does not look the name up. What a
program puts in their place before it imports fastq counts as NumPy's own; if it imports NumPy after fastq, what it puts
there before it first uses fastq (``fq.matmul`` itself is such a use).
"""

from __future__ import annotations

from typing import Any

import numpy as np

matmul = np.matmul
dot, vdot, inner, tensordot, einsum = np.dot, np.vdot, np.inner, np.tensordot, np.einsum
vecdot: Any = getattr(np, "vecdot", None)
matvec: Any = getattr(np, "matvec", None)  # NumPy 2.2
vecmat: Any = getattr(np, "vecmat", None)
linalg_matmul, linalg_tensordot, linalg_vecdot = np.linalg.matmul, np.linalg.tensordot, np.linalg.vecdot
multi_dot, solve, cholesky, inv = np.linalg.multi_dot, np.linalg.solve, np.linalg.cholesky, np.linalg.inv
