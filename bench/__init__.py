"""dibs beside its peers: the same work, the same durability, in one run. `python -m bench --help`."""
