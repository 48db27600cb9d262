"""What the rules and the shell ask a store, and what it answers: requests, answers, news."""
