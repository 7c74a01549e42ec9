"""Labs that stay up: where they are found, what is said to them, and how one is entered."""
