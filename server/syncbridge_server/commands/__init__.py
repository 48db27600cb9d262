"""Commands for operators that ask a running server, or look at what one would run on."""
