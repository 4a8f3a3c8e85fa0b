"""The short way of the most frequent request. All that it does `web/api` does, too."""
