"""The command line: reads arguments, calls the wiring, prints. Exit codes: 0 done, 1 a promise was broken, 2 bad
input.
"""
