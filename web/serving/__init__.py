"""HTTP: connections and requests, read, bounded, let in and answered."""
