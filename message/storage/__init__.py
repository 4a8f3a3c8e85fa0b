"""Stores behind a message node: one contract, one file for each kind of store."""
