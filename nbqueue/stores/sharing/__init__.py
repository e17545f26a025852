"""One queue file for many processes: the owner serves the verbs of its store, guests call them."""
