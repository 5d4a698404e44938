"""Recalls: files of mass stores that are on tape, asked for before they are brought.

Items whose files are offline wait (`sorting`), one recall for each file of a store however many items want it
(`table`); a job for each store asks for them and looks whether they came (`stepping`), in the order and the numbers
that `choosing` decides; `telling` has it for people.
"""
