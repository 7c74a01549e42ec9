"""Check files: what is done to a lab and expected of it, as YAML.  Read, rehearsed on paper, then run, each in a lab of its own.

docs/checks.md describes the format; `model` is the file as it is written, `reading` makes a `Check` of it.
"""
