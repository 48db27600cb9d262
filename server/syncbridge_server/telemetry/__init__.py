"""What a process tells of itself while it runs: times, counts of the gateway, sums, traces."""
