"""A mass store that programs speak to, such as hsi or msscmd."""
