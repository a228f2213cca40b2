"""The tests of o3pro_bg."""
