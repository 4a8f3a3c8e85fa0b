"""Measurements: what a connection, a delivery and a push cost. See README.md for how to read them."""
