"""From deviations to their causes, read off the deviations alone: nobody knows what was injected, or whether anything was.

`contract` says what a cause is; `links`, `rules` and `ways` hold a function for each kind.
"""
