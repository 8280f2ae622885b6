"""The explorer of Monarch matrices: what is projected, onto how many blocks, and how near it comes."""
