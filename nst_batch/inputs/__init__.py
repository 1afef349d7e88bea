"""What a study is fed: pictures found, fetched, decoded and resized; weights.

May import `transfer` (for weights) and the leaves.
"""
