"""What subscribers and the server say to each other, as bytes and as values. Pure."""
