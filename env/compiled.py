"""How compiled functions are compiled.

By default numba counts references to every array at every call, and writes two ways into each function from
outside. With the judge's tuples of 17 arrays that was two thirds of a replay's time and half of the time of
the first compilation. Here nothing is counted: whoever calls from Python holds the arrays. A
function that makes an array does not compile so; hand it one.

What else keeps the first compilation short: a function is compiled once for every combination of types, and
int32 beside int64, or a literal beside a variable, is another one. An array's assignment to an array
brings the text of its error message with it.
"""

from __future__ import annotations

from functools import partial

from numba import njit

entry = partial(njit, cache=True, _nrt=False, no_cfunc_wrapper=True)
"""For a function that Python calls, and maybe compiled code, too."""

inner = partial(entry, no_cpython_wrapper=True)
"""For a function that compiled code alone calls."""
