"""Sockets of subscribers: accepted, read, written, timed, closed."""
