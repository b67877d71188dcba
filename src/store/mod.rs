//! The storage directory.
