"""Errors shown to a person; see `env.errors`."""

from env.errors import InputError, run_main

__all__ = ["InputError", "run_main"]
