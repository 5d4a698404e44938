"""A mass store that speaks S3."""
