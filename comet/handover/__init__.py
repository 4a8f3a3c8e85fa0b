"""Keys that change hands: gained from earlier owners, lost to new ones."""
