"""What ought to change, and why. Each policy is a spec and a pure ``decide``: values in, decisions out."""
