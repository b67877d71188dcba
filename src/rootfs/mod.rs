//! A tree that is an image: unpack, pack, view, copy, hash. The only door into an image.
