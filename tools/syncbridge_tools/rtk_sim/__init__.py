"""A stand-in voice provider over real HTTP, with faults to switch on."""
