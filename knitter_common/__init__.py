"""What all components share. It imports none of them."""
