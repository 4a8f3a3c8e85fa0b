"""What the nodes share: values, errors, contracts, membership. Imports none of the node packages."""
