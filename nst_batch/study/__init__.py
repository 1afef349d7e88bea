"""What to compute: the study's model and its checks, reading the YAML, presets, the plan, the estimate.

The way of a key: `yaml_values` (text) → `reading` (file, overrides, paths) → `model` (types, bounds, defaults;
`values` and `rules` beside it) → `plan` (trials). `mistakes` words what is wrong with one.
May import `inputs`, `transfer` and the leaves; knows neither `cluster` nor `store`.
"""
