"""`syncbridge client-check`: scenarios with faults for any client."""
