"""What is seen live in a notebook: the panel, forms and cards, and the one thread that keeps them up to date."""
