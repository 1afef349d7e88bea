"""What a study is fed: pictures found, fetched, decoded and resized; weights; and the memory that there is.

The way of a picture: `finding` and `lists` (names) → `fetching` (bytes) → `decoding` (pixels) → `images` and
`masks` (size, arrays); planning walks it as far as `inspecting`.
May import `transfer` (for weights) and the leaves.
"""
