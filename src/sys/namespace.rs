//! User and other namespaces.
