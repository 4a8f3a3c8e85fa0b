"""Comet nodes: hold subscribers' connections and serve the keys that the ring gives them."""
