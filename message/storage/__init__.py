"""Stores behind a message node: one contract (base.py), kept by embedded/, redis/ and mysql/."""
