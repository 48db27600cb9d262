"""Rules about call sessions beside their states: events, lists, records for billing."""
