"""A host behind SSH that has no shell, or no python: everything by SFTP."""
