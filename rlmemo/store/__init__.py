"""The store: recorded timelines, runs, predictions and ratings in one SQLite file."""

from rlmemo.store.database import Store, open_store, store_when_done

__all__ = ["Store", "open_store", "store_when_done"]
