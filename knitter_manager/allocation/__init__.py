"""Port sets: wishes become ports with addresses, all or none, and end again. Plans are made in memory, then committed."""
