"""How nodes call each other: one connection per peer, many calls in flight."""
