"""What can be run: how it is defined, what it is known by, and the table of those that are here."""
