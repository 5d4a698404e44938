"""Lists beside a manifest: what is accepted as missing, and what a registry says should exist."""
