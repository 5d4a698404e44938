"""How a camera's focal planes are cut, and when one is whole."""
