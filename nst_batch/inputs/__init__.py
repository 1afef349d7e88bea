"""What a study is fed: pictures found, fetched, decoded and resized; weights; and the memory that there is.

The way of a picture: `finding` (names) → `fetching` (bytes) → `decoding` (pixels) → `images` (size, arrays);
planning walks it as far as `inspecting`.
May import `transfer` (for weights) and the leaves.
"""
