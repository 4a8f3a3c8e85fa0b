"""The way of a push: admitted, queued for its key, saved, delivered."""
