"""The embedded store: one SQLite file in this process (store.py)."""
