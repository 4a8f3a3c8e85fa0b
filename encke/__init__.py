"""The command, the composition of all nodes in one process, and the Python client."""
