"""A row is a job: many jobs handed in together, and what became of them."""
