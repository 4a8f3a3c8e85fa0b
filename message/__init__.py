"""Message nodes: store messages for later delivery."""
