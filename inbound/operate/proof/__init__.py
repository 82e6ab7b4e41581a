"""SES as the oracle: what it stored and published of real messages is held against what we make of the same messages.

`stored` reads objects, `told` reads JSON, `verdicts` and `forms` compare, `judging` judges anew, `sources` fetches, `report` counts.
"""
