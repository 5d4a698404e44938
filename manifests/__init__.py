"""Says what should be where. Pure: no input or output but reading its own files."""
