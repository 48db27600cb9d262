"""What an operator can see and say: figures of all nodes, lists, and notices to everybody."""
