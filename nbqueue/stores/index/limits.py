"""How much an index keeps in memory of what can be loaded again."""

from __future__ import annotations

#: A store that can load jobs again takes no more new ones into memory than up to so many unfinished ones.
PENDING_KEPT = 20_000
ENDED_KEPT = 5_000
#: With what it loads again comes what is next, up to so many jobs, and about so many characters if the next are like
#: the last: a question to the file takes as long as 500 of them.
LOAD_AHEAD = 8_000
LOAD_TEXT = 8 * 1024 * 1024
#: Of jobs with more text than this, in characters, it keeps none that it can load again: few would fill the memory.
LARGE = 16_384
