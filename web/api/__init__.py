"""What is asked of a web node: which handler answers, and the handlers."""
