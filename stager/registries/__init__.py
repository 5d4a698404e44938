"""What is handed to those who read images: registries as DC3b had them, and tables for today's Butler.

drafts.py   a file that comes into place whole, or not at all, on this machine or at a host
landed.py   which images there are, and their ids and times, into a table of their own
taiobs.py   the text that DC3b had for a time
schemas.py  the tables of registry.sqlite3 for a camera
dc3b.py     registry.sqlite3, brought up to what landed; visits.py what is the same in all images of a visit
calib.py    calibRegistry.sqlite3 from the inventory of master detrends; inventory.py reads that
ecsv.py     a table for `butler ingest-files`
"""
