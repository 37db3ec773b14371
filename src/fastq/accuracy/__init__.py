"""How large an error is: of an array, of a product and its parts, and at most."""
