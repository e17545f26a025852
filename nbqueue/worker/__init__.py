"""What takes jobs from a store and sees them run: the worker, and one job in the foreground."""
