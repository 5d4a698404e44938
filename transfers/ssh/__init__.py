"""A host behind SSH with a python3: the agent is sent there; two clients, OpenSSH and paramiko."""
