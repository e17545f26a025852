"""Proof by violence: processes on one queue, killed at random while jobs run, and an account of what became of them.

``running`` starts and kills, ``roles`` and ``tasks`` are what the processes do, ``audit`` settles the account from the
queue's own history and from what the jobs left behind.
"""
