"""Web nodes: the HTTP APIs. They validate, find the node of a key and forward."""
