"""What to compute: the study's model and its checks, reading the YAML, presets, the plan, the estimate.

May import `inputs`, `transfer` and the leaves; knows neither `cluster` nor `store`.
"""
