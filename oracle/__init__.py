"""A model that knows the truth: it writes answers of known quality and judges them as every kind of judge is asked to.

Part of `zephyr selftest`. It shares nothing with `judges/`: it reads a judge's prompt as a person would and writes the
verdict as the prompt asks, or, where it is told to, badly. It keeps a ledger of what it meant.
"""
