"""Which keys this node owns, and whether it may still say so."""
