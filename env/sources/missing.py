"""What a cell says where nothing was given, as R, pandas, spreadsheets and databases write it."""

from __future__ import annotations

# Spelled exactly: "Na" and "Nan" are people's names, and "-" or "?" may be what something is called.
_R_AND_PANDAS = ("NA", "N/A", "n/a", "<NA>", "#N/A", "NaN", "nan", "NaT", "None", "none")
_DATABASES = ("NULL", "Null", "null", "\\N")
MISSING = frozenset(("", *_R_AND_PANDAS, *_DATABASES))


def missing(text: str) -> bool:
    """Whether a cell is empty or says that nothing was given."""
    return text.strip() in MISSING
