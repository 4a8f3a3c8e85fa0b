"""The Redis store: Redis servers (store.py)."""
