"""The side-by-side benchmark: start a server, load it, write down what it cost."""
