"""What funcrt does in a second, beside its peers: `python -m benchmarks --help`."""
