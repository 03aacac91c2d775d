"""How compiled functions are compiled.

By default numba counts references to every array at every call. With the judge's tuples of 17 arrays that was
two thirds of a replay's time and half of the time of the first compilation. Here nothing is counted: whoever
calls from Python holds the arrays. A function that makes an array does not compile so; hand it one.

What else keeps the first compilation short: a function is compiled once for every combination of types, and
int32 beside int64, or a literal beside a variable, is another one. An array's assignment to an array
brings the text of its error message with it.
"""

from __future__ import annotations

from typing import Any

from numba import njit

_HOW: dict[str, Any] = {"cache": True, "_nrt": False, "no_cfunc_wrapper": True}

compiled = njit(**_HOW)
"""Decorates a function that Python or compiled code calls."""

inlined = njit(**_HOW, inline="always")
"""The same, for a short one whose call would cost more than what it does."""
