"""The command line; imported by nothing else but the magics, which share its tables."""
