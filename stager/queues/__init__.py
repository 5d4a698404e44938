"""Where triggers wait for a pipeline: one file for each kind of queue."""
