"""What a camera expects of headers, held against them."""
