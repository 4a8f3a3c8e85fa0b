"""One module per command: add_parser() describes its arguments, run() does it and returns the exit code.

A module imports at its top only what describing needs; the rest is imported
in run(), so that `encke push` does not pay for the server.
"""
