"""Which address goes out next: pure policy, no I/O, clock, randomness or logging. Addresses are whole numbers here."""
