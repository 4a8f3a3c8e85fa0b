"""What callers and a web node say to each other, as bytes and as values. Pure."""
