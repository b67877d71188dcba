//! One command in a root file system.
