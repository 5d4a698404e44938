"""What people type. Each command parses, calls one function and draws what it gave."""
