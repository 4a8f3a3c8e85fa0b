"""Stores behind a message node: one contract (base.py), kept by embedded*.py, redis*.py and mysql*.py."""
