"""How often, and how much: token buckets, attempts that fail, budgets of users."""
