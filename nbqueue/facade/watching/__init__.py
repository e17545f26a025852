"""What live views ask a queue for: what has changed since they last looked, and little else."""
