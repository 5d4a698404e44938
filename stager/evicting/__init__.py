"""Making room: copies go from a host into quarantine, and later for good, when enough others are proven.

`evicting.evict` chooses and moves, `purging` removes for good or puts back, `making_room` does it by itself where the
configuration says so, `checks` is what the doctor asks. A tombstone (`tombstones.py`) is written before a file is
touched; whatever breaks off, `recovering` ends it one way or the other.
"""
