"""What nodes say to each other: request and reply values, and the interface of each node kind.

Called directly where the nodes share a process. The values are msgspec
structs in array form, so that they can cross a process border as they are.
A field added later goes to the end and has a default.
"""
