"""The way of a push: to the nodes that own its keys, again while it may be, and its answers as one."""
