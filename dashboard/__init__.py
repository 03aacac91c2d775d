import rlmemo  # noqa: F401 - Ctrl-C while pages are imported is no error
